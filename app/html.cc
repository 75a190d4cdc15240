#include "app/html.h"

#include <algorithm>
#include <filesystem>

#include "host/error.h"
#include "host/sha256.h"
#include "host/utf8.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

bool is_control(std::string_view character) {
  const auto byte = static_cast<unsigned char>(character[0]);
  if (character.size() == 1) return (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F;
  // U+0080 to U+009F
  return character.size() == 2 && byte == 0xC2 && static_cast<unsigned char>(character[1]) < 0xA0;
}

std::string_view reference_for(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&#39;";
    default:
      return "";
  }
}

bool plain_in_url(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~/").find(c) != std::string_view::npos;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string html;
  while (!text.empty()) {
    const size_t length = host::utf8_length(text);
    const std::string_view character = text.substr(0, std::max(length, size_t{1}));
    const std::string_view reference = reference_for(character[0]);
    if (length == 0 || is_control(character)) {
      html += kReplacement;
    } else {
      html += reference.empty() ? character : reference;
    }
    text.remove_prefix(character.size());
  }
  return html;
}

std::string link_to(const std::string& path, const std::string& folder) {
  const auto whole = [](const std::string& name) {
    std::error_code error;
    const fs::path absolute = fs::absolute(name.empty() ? "." : name, error);
    return absolute.lexically_normal();
  };
  fs::path base = whole(folder);
  if (!base.has_filename()) base = base.parent_path();  // "a/" is "a" and nothing
  // What begins with dots cannot begin with a scheme.
  const std::string relative = "./" + whole(path).lexically_relative(base).string();
  std::string link;
  for (const char c : relative) {
    link +=
        plain_in_url(c) ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return link;
}

std::string base64(std::span<const std::byte> bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const auto group = bytes.subspan(at, std::min<size_t>(3, bytes.size() - at));
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i) {
      bits = bits << 8 | (i < group.size() ? static_cast<uint32_t>(group[i]) : 0);
    }
    for (size_t i = 0; i < 4; ++i) {
      text += i <= group.size() ? kDigits[bits >> (18 - 6 * i) & 63] : '=';
    }
  }
  return text;
}

std::string policy_hash(std::string_view text) {
  const host::Sha256Digest digest = host::sha256(text);
  return "sha256-" + base64(std::as_bytes(std::span(digest)));
}

std::string fill(std::string_view html, const HtmlValues& values) {
  std::string filled;
  while (true) {
    const size_t begin = html.find("{{");
    filled += html.substr(0, begin);
    if (begin == html.npos) return filled;
    const size_t end = html.find("}}", begin);
    OCELLI_CHECK(end != html.npos, "a name without end in {}", html.substr(begin, 40));
    const std::string_view name = html.substr(begin + 2, end - begin - 2);
    const auto found = values.find(name);
    OCELLI_CHECK(found != values.end(), "{} has no value", name);
    filled += found->second;
    html.remove_prefix(end + 2);
  }
}

std::string_view html_part(std::string_view parts, std::string_view name) {
  const std::string title = fmt::format("<!-- {} -->\n", name);
  const size_t begin = parts.find(title);
  OCELLI_CHECK(begin != parts.npos, "there is no part {}", name);
  const std::string_view rest = parts.substr(begin + title.size());
  return rest.substr(0, rest.find("<!-- "));
}

}  // namespace ocelli::app
