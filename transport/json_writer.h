// SPDX-License-Identifier: Apache-2.0
// JSON text, appended to one string as fast as it can be made: flame graphs have a million
// numbers, and names in them are bytes of strangers. Bytes that are not UTF-8 become U+FFFD.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace firewatch::transport {

// One thread. Commas are placed by the writer; the caller opens and closes in the right order.
//   JsonWriter json;
//   json.BeginObject().Key("total").Value(7).Key("names").BeginArray().Value("a").EndArray();
//   std::string text = std::move(json.EndObject()).Take();
class JsonWriter {
 public:
  JsonWriter& BeginObject() { return Open('{'); }
  JsonWriter& EndObject() { return Close('}'); }
  JsonWriter& BeginArray() { return Open('['); }
  JsonWriter& EndArray() { return Close(']'); }
  JsonWriter& Key(std::string_view name);
  JsonWriter& Value(std::string_view text);
  JsonWriter& Value(const char* text) { return Value(std::string_view(text)); }
  JsonWriter& Value(const std::string& text) { return Value(std::string_view(text)); }
  JsonWriter& Value(bool value) { return Raw(value ? "true" : "false"); }
  template <std::integral T>
    requires(!std::same_as<T, bool> && !std::same_as<T, char>)
  JsonWriter& Value(T value) {
    if constexpr (std::is_signed_v<T>) {
      return Signed(value);
    } else {
      return Unsigned(value);
    }
  }
  // Key and a whole array of integers.
  template <typename Range>
  JsonWriter& NumberArray(std::string_view name, const Range& numbers) {
    Key(name).BeginArray();
    for (const auto number : numbers) Value(number);
    return EndArray();
  }
  template <typename Range>
  JsonWriter& StringArray(std::string_view name, const Range& texts) {
    Key(name).BeginArray();
    for (const auto& text : texts) Value(std::string_view(text));
    return EndArray();
  }
  void Reserve(size_t bytes) { text_.reserve(bytes); }
  std::string Take() && { return std::move(text_); }

 private:
  JsonWriter& Open(char bracket);
  JsonWriter& Close(char bracket);
  JsonWriter& Raw(std::string_view text);
  JsonWriter& Signed(int64_t value);
  JsonWriter& Unsigned(uint64_t value);
  void Separate() {
    if (comma_) text_.push_back(',');
    comma_ = true;
  }

  std::string text_;
  bool comma_ = false;  // the next value or key needs a comma before it
};

}  // namespace firewatch::transport
