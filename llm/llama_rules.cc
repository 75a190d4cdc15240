#include "llm/llama_rules.h"

namespace ocelli::llm {
namespace {

void append_replaced(std::string_view text, std::string_view from, std::string_view to,
                     std::string& result) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from)) {
    result += text.substr(0, at);
    result += to;
    text.remove_prefix(at + from.size());
  }
  result += text;
}

}  // namespace

void append_marked(std::string_view text, std::string& marked) {
  append_replaced(text, " ", kSpaceMark, marked);
}

void append_unmarked(std::string_view token, std::string& text) {
  append_replaced(token, kSpaceMark, " ", text);
}

}  // namespace ocelli::llm
