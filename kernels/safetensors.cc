#include "kernels/safetensors.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "host/error.h"
#include "host/json.h"

namespace ocelli::kernels {
namespace {

using host::fail;
using host::printable;

constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxNameShown = 200;  // published names stay under 100 bytes

constexpr std::array<std::pair<std::string_view, DType>, 7> kDTypes = {{
    {"F32", DType::kF32},
    {"F16", DType::kF16},
    {"BF16", DType::kBF16},
    {"I8", DType::kI8},
    {"U8", DType::kU8},
    {"I32", DType::kI32},
    {"I64", DType::kI64},
}};

// A tensor as the header describes it.
struct Entry {
  HostTensor tensor;   // without its data
  uint64_t begin = 0;  // [begin, end), counted from the header's end
  uint64_t end = 0;
  bool has_dtype = false;
  bool has_shape = false;
  bool has_offsets = false;
};

// "FILE: the tensor "NAME""
std::string tensor_text(const Entry& entry, const std::string& where) {
  return fmt::format("{}: the tensor \"{}\"", where, printable(entry.tensor.name, kMaxNameShown));
}

// Turns the header's events into entries, refusing whatever the format does not have.
class HeaderReader final : public host::JsonEvents {
 public:
  using JsonEvents::JsonEvents;

  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { unexpected(); }
  bool boolean(bool /*value*/) override { unexpected(); }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { unexpected(); }
  bool number_integer(number_integer_t /*value*/) override { unexpected(); }  // the negative ones
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool start_object(size_t size) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(size_t size) override;
  bool end_array() override;

 private:
  enum class Place { kBefore, kTop, kMetadata, kTensor, kShape, kOffsets };

  bool top_key(string_t& name);
  bool tensor_key(const string_t& name);
  void set_dtype(const string_t& value);
  // The message's beginning for the tensor that the header has come to.
  std::string tensor() const { return tensor_text(entries.back(), where()); }
  // Throws Error: a value of a kind that has no business where it stands.
  [[noreturn]] void unexpected() const;

  Place place_ = Place::kBefore;
  bool has_metadata_ = false;
  bool in_metadata_ = false;  // the top-level key just read is "__metadata__"
  std::string key_;           // the last key of a tensor's or the metadata's object
  std::vector<uint64_t> offsets_;
};

void HeaderReader::unexpected() const {
  if (in_metadata_) fail("{}: \"__metadata__\" is not an object of strings", where());
  if (place_ == Place::kTop) fail("{} is not described by an object", tensor());
  if (key_ == "dtype") fail("{} has a dtype that is not a string", tensor());
  if (key_ == "shape") {
    fail("{} has a shape that is not a list of sizes, whole and not negative", tensor());
  }
  fail("{} has data_offsets that are not two whole numbers, not negative", tensor());
}

bool HeaderReader::start_object(size_t /*size*/) {
  if (place_ == Place::kBefore) {
    place_ = Place::kTop;
  } else if (place_ == Place::kTop) {
    place_ = in_metadata_ ? Place::kMetadata : Place::kTensor;
  } else {
    unexpected();
  }
  return true;
}

bool HeaderReader::end_object() {
  if (place_ == Place::kTensor) {
    const Entry& entry = entries.back();
    if (!entry.has_dtype || !entry.has_shape || !entry.has_offsets) {
      fail("{} has no {}", tensor(),
           !entry.has_dtype   ? "dtype"
           : !entry.has_shape ? "shape"
                              : "data_offsets");
    }
  }
  in_metadata_ = false;
  place_ = Place::kTop;
  return true;
}

bool HeaderReader::key(string_t& name) {
  if (place_ == Place::kTop) return top_key(name);
  if (place_ == Place::kTensor) return tensor_key(name);
  if (!metadata.emplace(name, "").second) {
    fail("{}: \"__metadata__\" has the key \"{}\" twice", where(), printable(name));
  }
  key_ = std::move(name);
  return true;
}

bool HeaderReader::top_key(string_t& name) {
  in_metadata_ = name == "__metadata__";
  if (!in_metadata_) {  // names that appear twice are found when all are known
    entries.emplace_back().tensor.name = std::move(name);
  } else if (std::exchange(has_metadata_, true)) {
    fail("{}: \"__metadata__\" appears twice", where());
  }
  return true;
}

bool HeaderReader::tensor_key(const string_t& name) {
  Entry& entry = entries.back();
  bool* const seen = name == "dtype"          ? &entry.has_dtype
                     : name == "shape"        ? &entry.has_shape
                     : name == "data_offsets" ? &entry.has_offsets
                                              : nullptr;
  if (seen == nullptr) {
    fail("{} has the key \"{}\", which the format does not have", tensor(), printable(name));
  }
  if (std::exchange(*seen, true)) fail("{} has the key {} twice", tensor(), name);
  key_ = name;
  return true;
}

bool HeaderReader::string(string_t& value) {
  if (place_ == Place::kMetadata) {
    metadata[key_] = std::move(value);
  } else if (place_ == Place::kTensor && key_ == "dtype") {
    set_dtype(value);
  } else {
    unexpected();
  }
  return true;
}

void HeaderReader::set_dtype(const string_t& value) {
  const auto* const known = std::find_if(kDTypes.begin(), kDTypes.end(),
                                         [&](const auto& dtype) { return dtype.first == value; });
  if (known == kDTypes.end()) {
    fail("{} has the dtype {}; only F32, F16, BF16, I8, U8, I32 and I64 are read", tensor(),
         printable(value));
  }
  entries.back().tensor.dtype = known->second;
}

bool HeaderReader::start_array(size_t /*size*/) {
  if (place_ != Place::kTensor || key_ == "dtype") unexpected();
  place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
  offsets_.clear();
  return true;
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (place_ == Place::kShape) {
    std::vector<int64_t>& shape = entries.back().tensor.shape;
    if (shape.size() == kMaxSafetensorsRank) {
      fail("{} has more than {} dimensions", tensor(), kMaxSafetensorsRank);
    }
    if (!std::in_range<int64_t>(value)) fail("{} has a size of {}", tensor(), value);
    shape.push_back(static_cast<int64_t>(value));
  } else if (place_ == Place::kOffsets && offsets_.size() < 2) {
    offsets_.push_back(value);
  } else {
    unexpected();
  }
  return true;
}

bool HeaderReader::end_array() {
  if (place_ == Place::kOffsets) {
    if (offsets_.size() != 2) unexpected();
    entries.back().begin = offsets_[0];
    entries.back().end = offsets_[1];
  }
  place_ = Place::kTensor;
  return true;
}

// The bytes that shape and dtype ask for, or nothing when the number does not fit.
std::optional<uint64_t> wanted_bytes(const HostTensor& tensor) {
  int64_t bytes = bytes_per_element(tensor.dtype);
  for (const int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return static_cast<uint64_t>(bytes);
}

void check_range(const Entry& entry, uint64_t data_bytes, const std::string& where) {
  const HostTensor& tensor = entry.tensor;
  if (entry.begin > entry.end) {
    fail("{} ends at byte {}, before it begins at {}", tensor_text(entry, where), entry.end,
         entry.begin);
  }
  if (entry.end > data_bytes) {
    fail("{} ends at byte {}, but the file has {} after its header; is it truncated?",
         tensor_text(entry, where), entry.end, data_bytes);
  }
  const std::optional<uint64_t> wanted = wanted_bytes(tensor);
  if (!wanted) {
    fail("{} has the impossible shape {}", tensor_text(entry, where), shape_text(tensor.shape));
  }
  if (*wanted != entry.end - entry.begin) {
    fail("{} has {} bytes, but {} {} takes {}", tensor_text(entry, where), entry.end - entry.begin,
         name(tensor.dtype), shape_text(tensor.shape), *wanted);
  }
}

// Sorts the entries by their bytes; throws Error unless these fill [0, data_bytes) exactly.
void check_ranges(std::vector<Entry>& entries, uint64_t data_bytes, const std::string& where) {
  for (const Entry& entry : entries) check_range(entry, data_bytes, where);
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  uint64_t place = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != place) {
      fail("{} begins at byte {}, where {} was due: tensors {}", tensor_text(entry, where),
           entry.begin, place, entry.begin < place ? "overlap" : "leave a hole");
    }
    place = entry.end;
  }
  if (place != data_bytes) {
    fail("{}: its tensors end at byte {}, but it holds {} after its header", where, place,
         data_bytes);
  }
}

void check_names(const std::vector<Entry>& entries, const std::string& where) {
  std::vector<std::string_view> names;
  names.reserve(entries.size());
  for (const Entry& entry : entries) names.emplace_back(entry.tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    fail("{}: the tensor \"{}\" appears twice", where, printable(*twice, kMaxNameShown));
  }
}

// The JSON text of the header, its length checked.
std::string_view header_text(std::span<const std::byte> file, const std::string& where) {
  if (file.size() < kLengthBytes) {
    fail("{}: is not a safetensors file: it has only {} bytes", where, file.size());
  }
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | std::to_integer<uint64_t>(file[i]);
  if (length > kMaxSafetensorsHeader) {
    fail("{}: is not a safetensors file: its header would have {} bytes; at most {} are allowed",
         where, length, kMaxSafetensorsHeader);
  }
  if (length > file.size() - kLengthBytes) {
    fail("{}: its header has {} bytes, but only {} are there; is the file truncated?", where,
         length, file.size() - kLengthBytes);
  }
  if (length == 0 || file[kLengthBytes] != std::byte{'{'}) {
    fail("{}: is not a safetensors file: its header does not begin with '{{'", where);
  }
  return {reinterpret_cast<const char*>(file.data()) + kLengthBytes, length};
}

}  // namespace

SafetensorsContents parse_safetensors(std::span<const std::byte> file, const std::string& where) {
  const std::string_view header = header_text(file, where);
  HeaderReader reader(header, where);
  reader.run();
  const std::span<const std::byte> data = file.subspan(kLengthBytes + header.size());
  check_names(reader.entries, where);
  check_ranges(reader.entries, data.size(), where);

  SafetensorsContents contents;
  contents.metadata = std::move(reader.metadata);
  contents.tensors.reserve(reader.entries.size());
  for (Entry& entry : reader.entries) {
    entry.tensor.data = data.data() + entry.begin;
    contents.tensors.push_back(std::move(entry.tensor));
  }
  return contents;
}

}  // namespace ocelli::kernels
