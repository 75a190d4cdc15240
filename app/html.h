// HTML from templates and texts that nobody vouches for.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace ocelli::app {

// Text as it may stand between tags and in quoted attributes: the characters that mean something to
// HTML become references; control characters, and bytes that are not UTF-8, become U+FFFD.
std::string escape_html(std::string_view text);

// The path of a file as a link from a page in `folder` to it: relative, every byte that could mean
// something in a URL encoded. Never an address with a scheme.
std::string link_to(const std::string& path, const std::string& folder);

std::string base64(std::span<const std::byte> bytes);

// "sha256-…" of a script or style, for a Content-Security-Policy that allows nothing else.
std::string policy_hash(std::string_view text);

// Values of a template's {{names}}. They are HTML already.
using HtmlValues = std::map<std::string, std::string, std::less<>>;

// The template with its names replaced, once: what looks like a name in a value stays as it is.
// A name without a value is a bug.
std::string fill(std::string_view html, const HtmlValues& values);

// The piece of `parts` behind the line "<!-- NAME -->".
std::string_view html_part(std::string_view parts, std::string_view name);

}  // namespace ocelli::app
