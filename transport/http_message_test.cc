// SPDX-License-Identifier: Apache-2.0
#include "transport/http_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <limits>
#include <string>

#include "transport/gzip.h"
#include "transport/json_writer.h"

namespace firewatch::transport {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// zlib's own reader as the twin of Gzip().
std::string Gunzip(const std::string& bytes, size_t size) {
  std::string out(size, '\0');
  z_stream stream{};
  EXPECT_EQ(::inflateInit2(&stream, 15 + 16), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(::inflate(&stream, Z_FINISH), Z_STREAM_END);
  EXPECT_EQ(stream.total_out, size);
  ::inflateEnd(&stream);
  return out;
}

HttpRequest RequestAccepting(const char* encoding) {
  return {.method = "GET",
          .path = "/",
          .query = {},
          .headers = {{"accept-encoding", encoding}},
          .body = {}};
}

HttpResponse TextOf(size_t bytes) {
  return {.status = 200,
          .content_type = "application/json",
          .body = std::string(bytes, 'x'),
          .headers = {}};
}

TEST(GzipTest, ComesBackForEverySize) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1000}, size_t{5'000'000}}) {
    std::string text(size, '\0');
    for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * i >> 3);
    if (size > 0) {
      EXPECT_EQ(Gunzip(Gzip(text, 3), size), text);
    }
    EXPECT_GE(Gzip(text, 3).size(), 18u);  // header and trailer of gzip alone
  }
}

TEST(GzipTest, ReadsWhatClientsAccept) {
  for (const char* yes : {"gzip", "deflate, gzip", "gzip;q=1.0", "br;q=1, *;q=0.1", " x-gzip "}) {
    EXPECT_TRUE(AcceptsGzip(yes)) << yes;
  }
  for (const char* no : {"", "identity", "gzip;q=0", "gzip; q=0.000", "deflate", "gzipped"}) {
    EXPECT_FALSE(AcceptsGzip(no)) << no;
  }
}

TEST(CompressTest, CompressesLargeTextForClientsThatAcceptIt) {
  HttpResponse response = TextOf(2000);
  CompressIfWanted(RequestAccepting("gzip"), response);
  EXPECT_EQ(Gunzip(response.body, 2000), std::string(2000, 'x'));
}

TEST(CompressTest, LeavesSmallBinaryUnwantedAndEncodedBodies) {
  HttpResponse small = TextOf(1024);
  CompressIfWanted(RequestAccepting("gzip"), small);
  EXPECT_EQ(small.body.size(), 1024u);

  HttpResponse binary = TextOf(2000);
  binary.content_type = "application/octet-stream";
  CompressIfWanted(RequestAccepting("gzip"), binary);
  EXPECT_EQ(binary.body.size(), 2000u);

  HttpResponse unwanted = TextOf(2000);
  CompressIfWanted(RequestAccepting("identity"), unwanted);
  EXPECT_EQ(unwanted.body.size(), 2000u);

  HttpResponse encoded = TextOf(2000);
  encoded.headers.emplace_back("content-encoding", "gzip");
  CompressIfWanted(RequestAccepting("gzip"), encoded);
  EXPECT_EQ(encoded.body.size(), 2000u);
}

TEST(RenderTest, ForgesNoHeaderFromAValue) {
  HttpResponse response = TextOf(3);
  response.headers.emplace_back("X-Name", std::string("a\r\nSet-Cookie: b\0c", 18));
  const WireResponse wire = RenderResponse(std::move(response), false, true);
  EXPECT_THAT(wire.head, HasSubstr("X-Name: a  Set-Cookie: b c\r\n"));
  EXPECT_THAT(wire.head, Not(HasSubstr("\nSet-Cookie")));
}

TEST(RenderTest, AHeadTellsTheLengthAndSendsNoBody) {
  const WireResponse wire = RenderResponse(TextOf(7), true, true);
  EXPECT_THAT(wire.head, HasSubstr("Content-Length: 7\r\n"));
  EXPECT_EQ(wire.body, "");
}

TEST(RenderTest, NotModifiedHasNeitherBodyNorLength) {
  const WireResponse wire = RenderResponse(
      {.status = 304, .content_type = "text/css", .body = "x", .headers = {{"ETag", "\"1\""}}},
      false, true);
  EXPECT_THAT(wire.head, HasSubstr("304 Not Modified\r\n"));
  EXPECT_THAT(wire.head, HasSubstr("ETag: \"1\"\r\n"));
  EXPECT_THAT(wire.head, Not(HasSubstr("Content-Length")));
  EXPECT_EQ(wire.body, "");
}

TEST(RenderTest, EveryAnswerCarriesTheSecurityHeaders) {
  const WireResponse wire = RenderResponse(TextOf(1), false, false);
  EXPECT_THAT(wire.head, HasSubstr("X-Content-Type-Options: nosniff\r\n"));
  EXPECT_THAT(wire.head, HasSubstr("Referrer-Policy: no-referrer\r\n"));
  EXPECT_THAT(wire.head, HasSubstr("Connection: close\r\n"));
}

TEST(JsonWriterTest, PlacesCommasAndQuotes) {
  JsonWriter json;
  json.BeginObject().Key("a").Value(1).Key("b").BeginArray().EndArray().Key("c").BeginObject();
  json.EndObject().NumberArray("d", std::vector<int64_t>{-1, 2}).Key("e").Value(true);
  json.StringArray("f", std::vector<std::string>{"x", "y"});
  json.Key("g").Value(std::numeric_limits<uint64_t>::max()).EndObject();
  EXPECT_EQ(std::move(json).Take(),
            R"({"a":1,"b":[],"c":{},"d":[-1,2],"e":true,"f":["x","y"],"g":18446744073709551615})");
}

TEST(JsonWriterTest, EscapesControlAndReplacesWhatIsNotUtf8) {
  const auto quoted = [](std::string_view text) {
    JsonWriter json;
    json.Value(text);
    return std::move(json).Take();
  };
  EXPECT_EQ(quoted("a\"\\\n\t\x01\x7f"), R"("a\"\\\n\t\u0001\u007f")");
  EXPECT_EQ(quoted("\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\xa5"),
            "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\xa5\"");
  const std::string bad = "\"\xef\xbf\xbd\"";
  EXPECT_EQ(quoted("\xff"), bad);
  EXPECT_EQ(quoted("\xc3"), bad);                                 // cut short
  EXPECT_EQ(quoted("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");  // overlong '/'
  EXPECT_EQ(quoted("\xed\xa0\x80x").substr(10), "x\"");           // a surrogate: three replacements
}

}  // namespace
}  // namespace firewatch::transport
