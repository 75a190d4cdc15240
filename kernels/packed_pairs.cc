#include "kernels/packed_pairs.h"

#include <unordered_map>

#include "host/error.h"
#include "host/json.h"
#include "kernels/packed_file.h"

namespace ocelli::kernels {
namespace {

using host::fail;
using host::printable;
using nlohmann::json;

constexpr const char* kKey = "ocelli.bf16";
// So low that the sizes of panels stay far from 2^63.
constexpr int kLargestSide = 1 << 28;

// The shape that the entry gives the matrix `name`: sizes within reason.
std::vector<int64_t> parse_shape(const std::string& name, const json& value,
                                 const std::string& where) {
  const auto refuse = [&] {
    fail("{}: \"{}\" has no shape of a matrix for \"{}\": {}", where, kKey, printable(name, 200),
         printable(value.dump(), 200));
  };
  if (!value.is_array() || value.size() < 2 || value.size() > kMaxSafetensorsRank) refuse();
  std::vector<int64_t> shape;
  int64_t inputs = 1;
  for (const json& size : value) {
    if (!size.is_number_integer() || size < 1 || size > kLargestSide) refuse();
    shape.push_back(size.get<int64_t>());
    if (shape.size() > 1) inputs *= shape.back();
    if (inputs > kLargestSide) refuse();
  }
  return shape;
}

std::vector<int64_t> stored_shape(const PairShape& shape) {
  return {shape.panels(), shape.steps(), kPanelOutputs, 2};
}

// Adds a matrix to the text of the entry, which is empty before the first.
void add_pairs_entry(const HostTensor& matrix, std::string& text) {
  if (!text.empty()) text.pop_back();
  text += fmt::format("{}{}: {}}}", text.empty() ? "{" : ", ", json(matrix.name).dump(),
                      json(matrix.shape).dump());
}

}  // namespace

void take_pairs(SafetensorsContents& contents, const std::string& where) {
  const auto entry = contents.metadata.find(kKey);
  if (entry == contents.metadata.end()) return;
  const json matrices = host::parse_json(entry->second, fmt::format("{}: \"{}\"", where, kKey));
  contents.metadata.erase(entry);
  if (!matrices.is_object()) fail("{}: \"{}\" is not an object", where, kKey);
  std::unordered_map<std::string, HostTensor*> by_name;
  for (HostTensor& tensor : contents.tensors) by_name.emplace(tensor.name, &tensor);
  for (const auto& [name, value] : matrices.items()) {
    const auto found = by_name.find(name);
    if (found == by_name.end()) fail("{}: has no tensor \"{}\"", where, printable(name, 200));
    HostTensor& tensor = *found->second;
    HostTensor matrix = {.name = name,
                         .dtype = DType::kBF16,
                         .shape = parse_shape(name, value, where),
                         .data = tensor.data,
                         .layout = Layout::kPanels};
    const std::vector<int64_t> wanted = stored_shape(matrix.pair_shape());
    if (tensor.quantised() || tensor.dtype != DType::kBF16 || tensor.shape != wanted) {
      fail("{}: the tensor \"{}\" is {} {}, wanted bf16 {}", where, printable(name, 200),
           kernels::name(tensor.dtype), shape_text(tensor.shape), shape_text(wanted));
    }
    if (reinterpret_cast<uintptr_t>(tensor.data) % kPackedAlignment != 0) {
      fail("{}: the tensor \"{}\" does not begin at a multiple of {} bytes", where,
           printable(name, 200), kPackedAlignment);
    }
    tensor = std::move(matrix);
  }
}

void PackedWriter::plan_pairs(const HostTensor& matrix) {
  add_pairs_entry(matrix, pairs_);
  set_metadata("bf16", pairs_);
  plan(matrix.name, "BF16", stored_shape(matrix.pair_shape()), matrix.bytes());
}

}  // namespace ocelli::kernels
