#include "kernels/packed_file.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <utility>

#include "host/error.h"
#include "host/json.h"
#include "kernels/ops.h"
#include "kernels/packed_pairs.h"
#include "kernels/packing.h"

namespace ocelli::kernels {
namespace {

using host::fail;
using host::printable;
using nlohmann::json;

constexpr std::string_view kPrefix = "ocelli.";
constexpr const char* kFormatKey = "ocelli.format";
constexpr const char* kInt8Key = "ocelli.int8";
constexpr const char* kInt4Key = "ocelli.int4";
constexpr const char* kTokenizerName = "ocelli.tokenizer";
constexpr const char* kChecksumsName = "ocelli.checksums";
constexpr std::string_view kPaddingPrefix = "ocelli.padding.";
constexpr const char* kScalesSuffix = ".scales";
constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxDamagedNamed = 5;
// So low that the sizes of panels stay far from 2^63.
constexpr int kLargestSide = 1 << 28;

std::string quoted(const std::string& name) {
  return fmt::format("\"{}\"", printable(name, 200));
}

// Where in the metadata, and in which file, something stands.
struct Place {
  const char* key;
  const std::string& file;
};

std::string dtype_text(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kI8:
      return "I8";
    default:
      OCELLI_CHECK(false, "a tensor of {}", name(dtype));
  }
  return "";
}

void check_format(const std::map<std::string, std::string>& metadata, const std::string& where) {
  const std::string& text = metadata.at(kFormatKey);
  int version = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail("{}: \"{}\" is \"{}\", wanted a number", where, kFormatKey, printable(text));
  }
  if (version != kPackedFormat) {
    fail(
        "{}: is a packed model of format {}, and this program reads format {}: make it again from "
        "its source with `ocelli quantize`",
        where, version, kPackedFormat);
  }
}

// Takes `key` out of the metadata.
std::string take_text(std::map<std::string, std::string>& metadata, const std::string& key,
                      const std::string& where) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) {
    fail("{}: its metadata has no \"{}\", which a packed model needs", where, key);
  }
  std::string text = std::move(found->second);
  metadata.erase(found);
  return text;
}

// Takes the object `place.key` out of the metadata.
json take_object(std::map<std::string, std::string>& metadata, const Place& place) {
  json object = host::parse_json(take_text(metadata, place.key, place.file),
                                 fmt::format("{}: \"{}\"", place.file, place.key));
  if (!object.is_object()) fail("{}: \"{}\" is not an object", place.file, place.key);
  return object;
}

// The matrix `name` as "ocelli.int8" or "ocelli.int4" describes it, without its data: sizes within
// reason, and a group that divides its rows, or one of int4's.
HostTensor parse_quantised(const std::string& name, const json& value, const Place& place) {
  const bool int4 = place.key == kInt4Key;
  const auto refuse = [&] {
    fail("{}: \"{}\" has no shape of a matrix and group {} for {}: {}", place.file, place.key,
         int4 ? "of 32, 64 or 128" : "that divides its rows", quoted(name),
         printable(value.dump(), 200));
  };
  const auto size_of = [&](const json& size, int largest) {
    if (!size.is_number_integer() || size < 1 || size > largest) refuse();
    return size.get<int>();
  };
  const auto shape = value.find("shape");
  const auto group = value.find("group");
  if (!value.is_object() || shape == value.end() || group == value.end() || !shape->is_array() ||
      shape->size() < 2 || shape->size() > kMaxSafetensorsRank) {
    refuse();
  }
  HostTensor matrix = {.name = name, .dtype = DType::kI8, .shape = {}};
  matrix.group = size_of(*group, kLargestGroup);
  int64_t inputs = 1;
  for (const json& size : *shape) {
    matrix.shape.push_back(size_of(size, kLargestSide));
    if (matrix.shape.size() > 1) inputs *= matrix.shape.back();
    if (inputs > kLargestSide) refuse();
  }
  if (int4) {
    if (std::ranges::find(kFactorGroups, matrix.group) == std::end(kFactorGroups)) refuse();
    if (inputs > kLargestGroup) refuse();
    matrix.factor_group = std::exchange(matrix.group, static_cast<int>(inputs));
  }
  if (inputs % matrix.group != 0) refuse();
  return matrix;
}

// The tensors of a file by name; what is taken out is gone.
class Tensors {
 public:
  Tensors(std::vector<HostTensor> tensors, std::string where) : where_(std::move(where)) {
    by_name_.reserve(tensors.size());
    for (HostTensor& tensor : tensors) {
      const std::string name = tensor.name;
      by_name_.emplace(name, std::move(tensor));
    }
  }

  HostTensor take(const std::string& name) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) fail("{}: has no tensor {}", where_, quoted(name));
    HostTensor tensor = std::move(found->second);
    by_name_.erase(found);
    return tensor;
  }
  // Throws Error unless it is of this dtype and shape, at a cache line.
  HostTensor take(const std::string& name, DType dtype, const std::vector<int64_t>& shape) {
    HostTensor tensor = take(name);
    if (tensor.dtype != dtype || tensor.shape != shape) {
      fail("{}: the tensor {} is {} {}, wanted {} {}", where_, quoted(name),
           kernels::name(tensor.dtype), shape_text(tensor.shape), kernels::name(dtype),
           shape_text(shape));
    }
    if (reinterpret_cast<uintptr_t>(tensor.data) % kPackedAlignment != 0) {
      fail("{}: the tensor {} does not begin at a multiple of {} bytes", where_, quoted(name),
           kPackedAlignment);
    }
    return tensor;
  }
  bool is_panels(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found != by_name_.end() && found->second.dtype == DType::kU8;
  }
  std::vector<HostTensor> rest() {
    std::vector<HostTensor> tensors;
    for (auto& [name, tensor] : by_name_) {
      if (!name.starts_with(kPaddingPrefix)) tensors.push_back(std::move(tensor));
    }
    return tensors;
  }

 private:
  std::string where_;
  std::unordered_map<std::string, HostTensor> by_name_;
};

// How the values of a matrix in panels are written.
std::vector<int64_t> stored_shape(const PanelShape& shape) {
  if (shape.is_int4()) return {shape.panels(), shape.factor_lines() + shape.lines(), kStepBytes};
  return {shape.panels(), shape.groups(), shape.steps(), kStepBytes};
}

HostTensor take_matrix(HostTensor joined, Tensors& tensors) {
  const PanelShape shape = joined.panel_shape();
  const std::string scales = joined.name + kScalesSuffix;
  if (shape.is_int4() || tensors.is_panels(joined.name)) {
    joined.layout = Layout::kPanels;
    joined.data = tensors.take(joined.name, DType::kU8, stored_shape(shape)).data;
    joined.scales = reinterpret_cast<const float*>(
        tensors.take(scales, DType::kF32, {shape.panels(), shape.groups(), kPanelOutputs}).data);
  } else {
    joined.data = tensors.take(joined.name, DType::kI8, joined.shape).data;
    joined.scales = reinterpret_cast<const float*>(
        tensors.take(scales, DType::kF32, {shape.outputs, shape.groups()}).data);
  }
  return joined;
}

// The header and the tensors before the checksums, with what these say.
std::vector<PackedContents::Checked> read_checksums(const std::vector<HostTensor>& tensors,
                                                    std::span<const std::byte> file,
                                                    const std::string& where) {
  if (tensors.empty() || tensors.back().name != kChecksumsName) {
    fail("{}: does not end with the tensor \"{}\"", where, kChecksumsName);
  }
  const HostTensor& sums = tensors.back();
  if (sums.dtype != DType::kI64 ||
      sums.shape != std::vector<int64_t>{static_cast<int64_t>(tensors.size())}) {
    fail("{}: the tensor \"{}\" is {} {}, wanted i64 [{}]", where, kChecksumsName,
         kernels::name(sums.dtype), shape_text(sums.shape), tensors.size());
  }
  std::vector<PackedContents::Checked> checked;
  checked.push_back({"", file.first(tensors.front().data - file.data()), 0});
  for (size_t i = 0; i + 1 < tensors.size(); ++i) {
    checked.push_back(
        {tensors[i].name, {tensors[i].data, static_cast<size_t>(tensors[i].bytes())}, 0});
  }
  for (size_t i = 0; i < checked.size(); ++i) {
    std::memcpy(&checked[i].checksum, sums.data + i * sizeof(uint64_t), sizeof(uint64_t));
  }
  return checked;
}

}  // namespace

void PackedContents::require_intact(const std::string& where) const {
  std::string named;
  size_t damaged = 0;
  for (const Checked& part : checked) {
    if (checksum_of(part.bytes) == part.checksum || ++damaged > kMaxDamagedNamed) continue;
    named += damaged == 1 ? "" : ", ";
    named += part.name.empty() ? "the header" : quoted(part.name);
  }
  if (damaged == 0) return;
  if (damaged > kMaxDamagedNamed) named += fmt::format(" and {} more", damaged - kMaxDamagedNamed);
  fail("{}: is damaged: the checksum of {} is wrong; copy or make it again", where, named);
}

bool is_packed(const SafetensorsContents& contents) {
  return contents.metadata.contains(kFormatKey);
}

bool looks_like_safetensors(std::span<const std::byte> file) {
  // The header is a JSON object. No other file that is read has text here: in a llama2.c file it is
  // the number of layers, below 2^16.
  return file.size() > kLengthBytes + 2 && file[kLengthBytes] == std::byte{'{'} &&
         file[kLengthBytes + 1] >= std::byte{' '};
}

PackedContents take_packed(SafetensorsContents& contents, std::span<const std::byte> file,
                           const std::string& where) {
  check_format(contents.metadata, where);
  PackedContents packed;
  packed.checked = read_checksums(contents.tensors, file, where);
  if (checksum_of(packed.checked[0].bytes) != packed.checked[0].checksum) {
    fail("{}: is damaged: the checksum of its header is wrong; copy or make it again", where);
  }
  take_pairs(contents, where);
  packed.config = take_text(contents.metadata, "ocelli.config", where);
  packed.source = take_text(contents.metadata, "ocelli.source", where);
  packed.tokenizer_kind = take_text(contents.metadata, "ocelli.tokenizer", where);
  const json int8 = take_object(contents.metadata, {kInt8Key, where});
  const json int4 = take_object(contents.metadata, {kInt4Key, where});

  Tensors tensors(std::move(contents.tensors), where);
  tensors.take(kChecksumsName);
  const HostTensor tokenizer = tensors.take(kTokenizerName);
  if (tokenizer.dtype != DType::kU8) fail("{}: \"{}\" is not of U8", where, kTokenizerName);
  packed.tokenizer = {tokenizer.data, static_cast<size_t>(tokenizer.bytes())};
  std::vector<HostTensor> matrices;
  for (const auto& [name, value] : int8.items()) {
    matrices.push_back(take_matrix(parse_quantised(name, value, {kInt8Key, where}), tensors));
  }
  for (const auto& [name, value] : int4.items()) {
    matrices.push_back(take_matrix(parse_quantised(name, value, {kInt4Key, where}), tensors));
  }
  contents.tensors = tensors.rest();
  std::move(matrices.begin(), matrices.end(), std::back_inserter(contents.tensors));
  return packed;
}

void PackedWriter::plan(const std::string& name, const std::string& dtype,
                        const std::vector<int64_t>& shape, int64_t bytes) {
  entries_.push_back({name, dtype, shape, bytes});
  data_bytes_ += bytes;
  const int64_t over = data_bytes_ % kPackedAlignment;
  if (over == 0) return;
  const int64_t missing = kPackedAlignment - over;
  entries_.push_back({fmt::format("{}{}", kPaddingPrefix, paddings_++), "U8", {missing}, missing});
  data_bytes_ += missing;
}

void PackedWriter::plan(const HostTensor& floats) {
  OCELLI_CHECK(!floats.quantised(), "{}", floats.name);
  plan(floats.name, dtype_text(floats.dtype), floats.shape, floats.bytes());
}

void PackedWriter::plan_values(const HostTensor& matrix) {
  const PanelShape shape = matrix.panel_shape();
  const bool int4 = shape.is_int4();
  std::string& list = int4 ? int4_ : int8_;
  const int group = int4 ? shape.factor_group : shape.group;
  list += fmt::format("{}{}: {}", list.empty() ? "" : ", ", json(matrix.name).dump(),
                      json{{"shape", matrix.shape}, {"group", group}}.dump());
  if (matrix.layout == Layout::kRows) {
    plan(matrix.name, "I8", matrix.shape, matrix.bytes());
  } else {
    plan(matrix.name, "U8", stored_shape(shape), shape.value_bytes());
  }
}

void PackedWriter::plan_scales(const HostTensor& matrix) {
  const PanelShape shape = matrix.panel_shape();
  const std::vector<int64_t> sizes =
      matrix.layout == Layout::kRows
          ? std::vector<int64_t>{shape.outputs, shape.groups()}
          : std::vector<int64_t>{shape.panels(), shape.groups(), kPanelOutputs};
  plan(matrix.name + kScalesSuffix, "F32", sizes,
       matrix.scale_count() * static_cast<int64_t>(sizeof(float)));
}

void PackedWriter::set_metadata(const std::string& key, const std::string& value) {
  metadata_[std::string(kPrefix) + key] = value;
}

std::string PackedWriter::header() const {
  json metadata = metadata_;
  metadata[kFormatKey] = std::to_string(kPackedFormat);
  metadata[kInt8Key] = "{" + int8_ + "}";
  metadata[kInt4Key] = "{" + int4_ + "}";
  std::string text = "{\"__metadata__\":" + metadata.dump();
  int64_t at = 0;
  for (const Entry& entry : entries_) {
    text += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
                        json(entry.name).dump(), entry.dtype, json(entry.shape).dump(), at,
                        at + entry.bytes);
    at += entry.bytes;
  }
  text += "}";
  const size_t over = (kLengthBytes + text.size()) % kPackedAlignment;
  if (over > 0) text.append(kPackedAlignment - over, ' ');
  std::string length;
  for (size_t i = 0; i < kLengthBytes; ++i) length += static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

void PackedWriter::begin(std::function<void(std::string_view)> write) {
  // One for the header and for every tensor before them.
  const int64_t count = static_cast<int64_t>(entries_.size()) + 1;
  entries_.push_back({kChecksumsName, "I64", {count}, count * int64_t{sizeof(uint64_t)}});
  write_ = std::move(write);
  const std::string text = header();
  file_bytes_ = static_cast<int64_t>(text.size()) + data_bytes_ + entries_.back().bytes;
  this->write(std::as_bytes(std::span(text)));
}

void PackedWriter::write(std::span<const std::byte> bytes) {
  checksums_.push_back(checksum_of(bytes));
  write_({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void PackedWriter::put(std::span<const std::byte> bytes) {
  const Entry& entry = entries_[next_++];
  OCELLI_CHECK(std::cmp_equal(bytes.size(), entry.bytes), "{} bytes for {} of {}", bytes.size(),
               entry.name, entry.bytes);
  write(bytes);
  if (entries_[next_].name.starts_with(kPaddingPrefix)) {
    const std::vector<std::byte> zeros(entries_[next_++].bytes);
    write(zeros);
  }
}

void PackedWriter::finish() {
  OCELLI_CHECK(next_ + 1 == entries_.size(), "{} of {} tensors", next_, entries_.size());
  const auto bytes = std::as_bytes(std::span(checksums_));
  write_({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace ocelli::kernels
