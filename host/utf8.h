// Well-formed UTF-8: how far a character reaches and where a text breaks the rules.
#pragma once

#include <cstddef>
#include <string_view>

namespace ocelli::host {

// The length in bytes of the well-formed UTF-8 character that starts `text`, 0 when there is none
// (or `text` is empty). Overlong forms, surrogates and values over U+10FFFF are not well-formed.
size_t utf8_length(std::string_view text);

// How many bytes at the start of `text` begin some well-formed character: its whole length for a
// whole character, fewer for one that is cut off or spoiled, 0 where none can begin. A decoder that
// replaces "the maximal subpart" (Unicode 3.9, as Python and browsers do) replaces this many bytes,
// at least one, by one U+FFFD.
size_t utf8_prefix(std::string_view text);

// The offset of the first byte that is not part of a well-formed character, npos when all are.
size_t utf8_fault(std::string_view text);

}  // namespace ocelli::host
