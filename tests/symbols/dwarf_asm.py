# SPDX-License-Identifier: Apache-2.0
"""Debug information of our own making, as text for an assembler: functions, inlined calls and line
programs as no compiler writes them, but linkers, optimizers and hand-written code do. DWARF 4, one
unit. Addresses are counted from the label text_start. Shares nothing with our reader."""

ABBREVIATIONS = """
    .section .debug_abbrev
    .uleb128 1; .uleb128 0x11; .byte 1          # compile unit, with children
    .uleb128 0x03; .uleb128 0x08                # name: string
    .uleb128 0x1b; .uleb128 0x08                # compilation directory
    .uleb128 0x10; .uleb128 0x17                # line program
    .uleb128 0x11; .uleb128 0x01                # low pc
    .uleb128 0x12; .uleb128 0x06                # high pc: data4
    .byte 0, 0
    .uleb128 2; .uleb128 0x2e; .byte 1          # function
    .uleb128 0x03; .uleb128 0x08
    .uleb128 0x3a; .uleb128 0x0b                # file of the declaration
    .uleb128 0x3b; .uleb128 0x06                # line of the declaration
    .uleb128 0x11; .uleb128 0x01
    .uleb128 0x12; .uleb128 0x06
    .byte 0, 0
    .uleb128 3; .uleb128 0x2e; .byte 0          # abstract function
    .uleb128 0x03; .uleb128 0x08
    .uleb128 0x3a; .uleb128 0x0b
    .uleb128 0x3b; .uleb128 0x06
    .uleb128 0x20; .uleb128 0x0b                # inline
    .byte 0, 0
    .uleb128 4; .uleb128 0x1d; .byte 1          # inlined call
    .uleb128 0x31; .uleb128 0x13                # abstract origin
    .uleb128 0x11; .uleb128 0x01
    .uleb128 0x12; .uleb128 0x06
    .uleb128 0x58; .uleb128 0x0b                # file of the call
    .uleb128 0x59; .uleb128 0x06                # line of the call
    .byte 0, 0
    .byte 0
"""


def function(name, start, end, line, *children):
    return ("function", name, start, end, line, children)


def inlined(name, start, end, call_line, *children):
    return ("inlined", name, start, end, call_line, children)


def row(address, line):
    return (address, line)


def _dies(nodes, out):
    for kind, name, start, end, line, children in nodes:
        if kind == "function":
            out.append(f'    .uleb128 2; .asciz "{name}"; .byte 1; .long {line}; .quad text_start+{start}; '
                       f".long {end - start}")
        else:
            out.append(f"    .uleb128 4; .long abstract_{name}-unit; .quad text_start+{start}; .long {end - start}; "
                       f".byte 1; .long {line}")
        _dies(children, out)
        out.append("    .byte 0")


def _inlined_names(nodes):
    for kind, name, _, _, _, children in nodes:
        if kind == "inlined":
            yield name
        yield from _inlined_names(children)


def line_program(sequences):
    """sequences: lists of row(), each closed by its end address: ([row(0, 1), row(4, 2)], 8). Rows
    stand as given, addresses may go backwards."""
    out = []
    for rows, end in sequences:
        line = 1
        for address, wanted in rows:
            out.append(f"    .byte 0; .uleb128 9; .byte 2; .quad text_start+{address}")
            if wanted != line:
                out.append(f"    .byte 3; .sleb128 {wanted - line}")
                line = wanted
            out.append("    .byte 1")
        out.append(f"    .byte 0; .uleb128 9; .byte 2; .quad text_start+{end}; .byte 0; .uleb128 1; .byte 1")
    return "\n".join(out)


def source(size, nodes, sequences, extra=""):
    """Assembler text: `size` nops with the functions' symbols, and what describes them."""
    text = ["    .text", "    .globl _start", "_start: text_start:", f"    .skip {size}, 0x90"]
    for _, name, start, end, _, _ in nodes:
        text.append(f"    .globl {name}; .set {name}, text_start+{start}; .type {name}, @function; "
                    f".size {name}, {end - start}")
    info = ["    .section .debug_info", "unit: .long unit_end-unit-4; .value 4; .long 0; .byte 8",
            '    .uleb128 1; .asciz "made.c"; .asciz "/made"; .long 0; .quad text_start; '
            f".long {size}"]
    for name in sorted(set(_inlined_names(nodes))):
        info.append(f'abstract_{name}: .uleb128 3; .asciz "{name}"; .byte 1; .long 7; .byte 1')
    _dies(nodes, info)
    info += ["    .byte 0", "unit_end:"]
    program = f"""
    .section .debug_line
lines: .long lines_end-lines-4; .value 4; .long program-header_end
header_end: .byte 1, 1, 1, 0xfb, 14, 13
    .byte 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1
    .byte 0
    .asciz "made.c"; .uleb128 0; .uleb128 0; .uleb128 0
    .byte 0
program:
{line_program(sequences)}
lines_end:
"""
    return "\n".join(text) + ABBREVIATIONS + "\n".join(info) + program + extra
