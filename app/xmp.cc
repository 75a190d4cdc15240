#include "app/xmp.h"

#include <algorithm>
#include <exiv2/exiv2.hpp>
#include <filesystem>
#include <mutex>
#include <utility>
#include <vector>

#include "host/error.h"
#include "host/mapped_file.h"
#include "host/output_file.h"
#include "llm/utf8_stream.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxBytes = size_t{16} << 20;  // sidecars with a long editing history have 100 KB
constexpr const char* kDescription = "Xmp.dc.description";
constexpr const char* kDefault = "x-default";
constexpr std::string_view kDublinCore = "http://purl.org/dc/elements/1.1/";
constexpr const char* kDeclaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

// The library's XMP toolkit, which has one state for the whole process: the prefixes of all files
// that it has read, which would find their way into the next. So every use begins afresh (0.1 ms),
// and there is one at a time.
class Toolkit {
 public:
  Toolkit() : lock_(mutex_) {
    Exiv2::LogMsg::setLevel(Exiv2::LogMsg::mute);  // what is wrong comes as a result as well
    Exiv2::XmpParser::initialize();
  }
  ~Toolkit() { Exiv2::XmpParser::terminate(); }
  Toolkit(const Toolkit&) = delete;
  Toolkit& operator=(const Toolkit&) = delete;

 private:
  static std::mutex mutex_;
  std::lock_guard<std::mutex> lock_;
};
std::mutex Toolkit::mutex_;

// The bytes of `sidecar`; none when there is no such file.
std::string read(const std::string& sidecar) {
  std::error_code error;
  const fs::file_status status = fs::status(sidecar, error);
  if (status.type() == fs::file_type::not_found) return "";
  if (fs::is_regular_file(status) && fs::file_size(sidecar, error) == 0 && !error) return "";
  const host::MappedFile file(sidecar);
  const auto bytes = file.bytes();
  if (bytes.size() > kMaxBytes) {
    host::fail("{}: has {} bytes, more than the {} that an XMP sidecar may have",
               host::printable(sidecar, 4096), bytes.size(), kMaxBytes);
  }
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Throws host::Error when `packet`, the bytes of `sidecar`, is not XMP in UTF-8.
Exiv2::XmpData parse(const std::string& packet, const std::string& sidecar) {
  Exiv2::XmpData data;
  if (packet.empty()) return data;
  int result = 1;
  try {
    result = Exiv2::XmpParser::decode(data, packet);
  } catch (const std::exception&) {
    // One of few faults that the library does not tell by its result.
  }
  // A file that calls something else "dc" would get our text under that other name.
  const bool own_dc = result == 0 && Exiv2::XmpProperties::ns("dc") == kDublinCore;
  if (!own_dc) {
    host::fail("{}: is not an XMP file that can be read: repair or remove it",
               host::printable(sidecar, 4096));
  }
  return data;
}

// The description's value as a property of alternatives by language, which a plain text is read as.
const Exiv2::LangAltValue* languages(const Exiv2::XmpData& data) {
  const auto datum = data.findKey(Exiv2::XmpKey(kDescription));
  return datum == data.end() ? nullptr : dynamic_cast<const Exiv2::LangAltValue*>(&datum->value());
}

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

// `text` in characters that XML can hold.
std::string legal(std::string_view text) {
  llm::Utf8Stream stream;
  std::string out = stream.push(text);
  out += stream.flush();
  for (char& byte : out) {
    const bool white = byte == '\t' || byte == '\n' || byte == '\r';
    if ((static_cast<unsigned char>(byte) < 0x20 && !white) || byte == 0x7F) byte = ' ';
  }
  // U+FFFE and U+FFFF are characters of UTF-8 but not of XML.
  for (const std::string_view none : {"\xEF\xBF\xBE", "\xEF\xBF\xBF"}) {
    for (size_t at = 0; (at = out.find(none, at)) != std::string::npos;) out[at + 2] = '\xBD';
  }
  return out;
}

void set_description(Exiv2::XmpData& data, std::string text) {
  Exiv2::LangAltValue value;
  if (const auto* present = languages(data)) value.value_ = present->value_;
  value.value_[kDefault] = std::move(text);
  const Exiv2::XmpKey key(kDescription);
  const auto datum = data.findKey(key);
  if (datum != data.end()) {
    datum->setValue(&value);
  } else {
    data.add(key, &value);
  }
}

// Every property with its value, in an order of its own.
std::vector<std::pair<std::string, std::string>> properties(const Exiv2::XmpData& data) {
  std::vector<std::pair<std::string, std::string>> all;
  for (const Exiv2::Xmpdatum& datum : data) all.emplace_back(datum.key(), datum.toString());
  std::ranges::sort(all);
  return all;
}

std::string serialise(const Exiv2::XmpData& data) {
  std::string packet;
  const int format = Exiv2::XmpParser::omitPacketWrapper | Exiv2::XmpParser::useCompactFormat;
  const int result = Exiv2::XmpParser::encode(packet, data, static_cast<uint16_t>(format));
  if (result != 0) host::fail("the XMP library's error {}", result);
  return packet;
}

}  // namespace

std::string xmp_sidecar(const std::string& picture) {
  return picture + ".xmp";
}

std::optional<std::string> xmp_description(const std::string& sidecar) {
  const std::string packet = read(sidecar);
  const Toolkit toolkit;
  const Exiv2::XmpData data = parse(packet, sidecar);
  const auto datum = data.findKey(Exiv2::XmpKey(kDescription));
  if (datum == data.end()) return std::nullopt;
  const auto* present = languages(data);
  if (!present)
    return is_blank(datum->toString()) ? std::nullopt : std::optional(datum->toString());
  const auto preferred = present->value_.find(kDefault);
  if (preferred != present->value_.end() && !is_blank(preferred->second)) return preferred->second;
  for (const auto& [language, text] : present->value_) {
    if (!is_blank(text)) return text;
  }
  return std::nullopt;
}

std::string xmp_with_description(const std::string& sidecar, std::string_view text) {
  const std::string before = read(sidecar);
  const Toolkit toolkit;
  Exiv2::XmpData data = parse(before, sidecar);
  std::string packet;
  bool kept = false;
  try {
    set_description(data, legal(text));
    packet = serialise(data);
    kept = properties(parse(packet, sidecar)) == properties(data);
  } catch (const std::exception&) {
    // Said below.
  }
  if (!kept) {
    host::fail("{}: holds what the XMP library cannot write again without a loss",
               host::printable(sidecar, 4096));
  }
  return kDeclaration + packet;
}

void write_xmp_description(const std::string& sidecar, std::string_view text) {
  const std::string packet = xmp_with_description(sidecar, text);
  host::OutputFile file(sidecar);
  file.write(packet);
  file.commit();
}

}  // namespace ocelli::app
