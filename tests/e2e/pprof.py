# SPDX-License-Identifier: Apache-2.0
"""A reader of pprof profiles in a page of Python: the tests' own, so that a mistake in Firewatch's
codec cannot hide itself. Understands packed and unpacked repeated fields; nothing else is needed.
"""
import gzip


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data):
    """Yields (number, value): int for varints, bytes for length-delimited fields."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at:at + size], at + size
        elif kind == 1:
            value, at = data[at:at + 8], at + 8
        elif kind == 5:
            value, at = data[at:at + 4], at + 4
        else:
            raise ValueError(f"wire type {kind}")
        yield key >> 3, value


def _numbers(value):
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _signed(value):
    return value - (1 << 64) if value >= 1 << 63 else value


class Profile:
    """types: [(type, unit)]; samples: [(frames leaf first, values, labels)], frames as strings."""

    def __init__(self, data):
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        self.strings, raw = [], {1: [], 2: [], 3: [], 4: [], 5: []}
        self.period = self.time_nanos = self.duration_nanos = 0
        for number, value in fields(data):
            if number == 6:
                self.strings.append(value.decode("utf-8", "replace"))
            elif number in raw:
                raw[number].append(value)
            elif number == 9:
                self.time_nanos = value
            elif number == 10:
                self.duration_nanos = value
            elif number == 12:
                self.period = value
        self.types = [self._value_type(value) for value in raw[1]]
        self.mappings = dict(self._mapping(value) for value in raw[3])
        functions = dict(self._function(value) for value in raw[5])
        self.lines = {}  # function -> {(file, line)}; line 0: unknown
        locations = dict(self._location(value, functions) for value in raw[4])
        self.samples = [self._sample(value, locations) for value in raw[2]]

    def _value_type(self, data):
        message = dict(fields(data))
        return self.strings[message.get(1, 0)], self.strings[message.get(2, 0)]

    def _mapping(self, data):
        message = dict(fields(data))
        return message.get(1, 0), {"file": self.strings[message.get(5, 0)],
                                   "build_id": self.strings[message.get(6, 0)],
                                   "has_functions": bool(message.get(7, 0))}

    def _function(self, data):
        message = dict(fields(data))
        return message.get(1, 0), (self.strings[message.get(2, 0)], self.strings[message.get(4, 0)])

    def _location(self, data, functions):
        number = mapping = address = 0
        names = []
        for field, value in fields(data):
            if field == 1:
                number = value
            elif field == 2:
                mapping = value
            elif field == 3:
                address = value
            elif field == 4:
                line = dict(fields(value))
                name, source = functions[line.get(1, 0)]
                names.append(name)
                self.lines.setdefault(name, set()).add((source, line.get(2, 0)))
        file = self.mappings.get(mapping, {}).get("file", "")
        return number, ([f"{file}+{address:#x}"] if not names else names, file)

    def _sample(self, data, locations):
        ids, values, labels = [], [], {}
        for field, value in fields(data):
            if field == 1:
                ids += _numbers(value)
            elif field == 2:
                values += [_signed(v) for v in _numbers(value)]
            elif field == 3:
                label = dict(fields(value))
                labels[self.strings[label.get(1, 0)]] = (
                    self.strings[label[2]] if 2 in label else _signed(label.get(3, 0)))
        frames = [name for number in ids for name in locations[number][0]]
        files = [locations[number][1] for number in ids]
        return frames, values, labels, files

    def index(self, kind):
        """The place of a sample type ("samples", "cpu") among a sample's values."""
        return [name for name, _ in self.types].index(kind)

    def total(self, kind="samples", where=lambda frames: True):
        at = self.index(kind)
        return sum(values[at] for frames, values, _, _ in self.samples if where(frames))

    def self_by_name(self, kind="samples"):
        at, found = self.index(kind), {}
        for frames, values, _, _ in self.samples:
            name = frames[0] if frames else ""
            found[name] = found.get(name, 0) + values[at]
        return found

    def binaries(self):
        """Total samples per binary that any frame of the stack lies in."""
        at, found = self.index("samples"), {}
        for _, values, _, files in self.samples:
            for file in set(files):
                found[file] = found.get(file, 0) + values[at]
        return found
