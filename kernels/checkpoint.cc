#include "kernels/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "host/error.h"
#include "host/json.h"
#include "kernels/ops.h"
#include "kernels/quantise_int4.h"
#include "kernels/safetensors.h"

namespace ocelli::kernels {
namespace {

namespace fs = std::filesystem;
using host::fail;
using host::printable;

constexpr size_t kMaxIndexBytes = 16 << 20;  // published indexes stay under 1 MB
constexpr size_t kMaxNonFiniteNamed = 5;

// An untrusted name for a message; published names stay under 100 bytes.
std::string quoted(const std::string& name) {
  return fmt::format("\"{}\"", printable(name, 200));
}

// Throws Error: `path` holds pickles, which are programs to run and not data to read.
[[noreturn]] void refuse_pickle(const fs::path& path) {
  fail(
      "{}: is a PyTorch pickle, which can run code and is not read; in its directory, convert it "
      "with: python3 -c 'import glob, torch; from safetensors.torch import save_file; "
      "save_file({{k: v.clone() for f in glob.glob(\"pytorch_model*.bin\") for k, v in "
      "torch.load(f, map_location=\"cpu\", weights_only=True).items()}}, \"model.safetensors\")'",
      path.string());
}

// Throws Error when a file's beginning shows a well-known other thing.
void refuse_others(std::span<const std::byte> file, const fs::path& path) {
  const std::string_view start(reinterpret_cast<const char*>(file.data()),
                               std::min<size_t>(file.size(), 100));
  // PyTorch writes zip archives, and wrote bare pickles of protocol 2 before.
  if (start.starts_with("PK\x03\x04") || start.starts_with("\x80\x02")) refuse_pickle(path);
  if (start.starts_with("version https://git-lfs")) {
    fail("{}: is a Git LFS pointer, not the file itself; fetch that with: git lfs pull",
         path.string());
  }
}

bool is_there(const fs::path& path) {
  std::error_code ignored;  // what cannot be seen is not there; opening it would say why
  return fs::exists(path, ignored);
}

// The file of a directory that says where its tensors are.
fs::path find_model(const fs::path& directory) {
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    if (is_there(directory / name)) return directory / name;
  }
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (is_there(directory / name)) refuse_pickle(directory / name);
  }
  fail("{}: holds neither model.safetensors nor model.safetensors.index.json", directory.string());
}

// Whether `name` can only be a file beside the index, and prints as it is.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of("/\\") == std::string::npos && printable(name, name.size()) == name;
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

// What of a tensor can be NaN or infinite: its values, or a quantised tensor's scales.
HostTensor floats_of(const HostTensor& tensor) {
  if (tensor.in_pairs()) {
    return {.name = tensor.name,
            .dtype = DType::kBF16,
            .shape = {tensor.bytes() / bytes_per_element(DType::kBF16)},
            .data = tensor.data};
  }
  if (!tensor.quantised()) return tensor;
  return {.name = tensor.name,
          .dtype = DType::kF32,
          .shape = {tensor.scale_count()},
          .data = reinterpret_cast<const std::byte*>(tensor.scales)};
}

// How many values have an exponent of all ones, which is what NaN and infinity have.
template <typename T>
int64_t count_non_finite(const HostTensor& tensor, T exponent) {
  constexpr int64_t kBlock = 1 << 14;  // counted in a T, so that the loop vectorises in its lanes
  const int64_t elements = tensor.elements();
  int64_t total = 0;
  for (int64_t first = 0; first < elements; first += kBlock) {
    const int64_t end = std::min(first + kBlock, elements);
    T count = 0;
    for (int64_t i = first; i < end; ++i) {
      T value;
      std::memcpy(&value, tensor.data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
      count = static_cast<T>(count + ((value & exponent) == exponent ? 1 : 0));
    }
    total += count;
  }
  return total;
}

// Of int4: how many factors are not −15 … 15.
int64_t count_impossible_factors(const HostTensor& tensor) {
  const PanelShape shape = tensor.panel_shape();
  int64_t count = 0;
  for (int n = 0; n < shape.outputs; ++n) {
    for (int i = 0; i < shape.inputs; i += shape.factor_group) {
      const auto factor = std::to_integer<int8_t>(tensor.data[shape.factor_at(n, i)]);
      count += factor < -kLargestFactor || factor > kLargestFactor ? 1 : 0;
    }
  }
  return count;
}

int64_t count_non_finite(const HostTensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
      return count_non_finite<uint32_t>(tensor, 0x7F800000);
    case DType::kF16:
      return count_non_finite<uint16_t>(tensor, 0x7C00);
    case DType::kBF16:
      return count_non_finite<uint16_t>(tensor, 0x7F80);
    default:
      return 0;
  }
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& path) {
  Checkpoint checkpoint;
  checkpoint.path_ = path;
  std::error_code ignored;
  const fs::path model = fs::is_directory(path, ignored) ? find_model(path) : path;
  if (model.extension() == ".json") {
    checkpoint.open_index(model);
  } else {
    checkpoint.add_file(model);
  }
  return checkpoint;
}

Checkpoint::Checkpoint(std::unique_ptr<host::MappedFile> file, std::vector<HostTensor> tensors)
    : path_(file->path()) {
  files_.push_back(std::move(file));
  paths_.push_back(path_);
  for (HostTensor& tensor : tensors) {
    const std::string name = tensor.name;
    const bool fresh = add_tensor(std::move(tensor));
    OCELLI_CHECK(fresh, "two tensors {}", name);
  }
}

void Checkpoint::open_index(const fs::path& index) {
  const host::JsonObject top(host::read_json(index, kMaxIndexBytes), index.string());
  const host::JsonObject weights = top.object("weight_map");
  if (weights.value().empty()) fail("{}: its weight_map names no tensors", index.string());
  std::map<std::string, std::vector<std::string>> names_of;
  for (const auto& [name, file] : weights.value().items()) {
    names_of[weights.string(name, std::nullopt)].push_back(name);
  }
  for (const auto& [file, names] : names_of) {
    if (!is_plain_file_name(file)) {
      fail("{}: {} is not the name of a file beside it", index.string(), quoted(file));
    }
    const fs::path shard = index.parent_path() / file;
    if (!is_there(shard)) {
      fail("{}: is missing; {} names it for {} tensors", shard.string(), index.string(),
           names.size());
    }
    const std::set<std::string> there = add_file(shard);
    for (const std::string& name : names) {
      if (!there.contains(name)) {
        fail("{}: has no tensor {}, which {} says it has", shard.string(), quoted(name),
             index.string());
      }
    }
  }
}

std::set<std::string> Checkpoint::add_file(const fs::path& path) {
  files_.push_back(std::make_unique<host::MappedFile>(path));
  paths_.push_back(path);
  refuse_others(files_.back()->bytes(), path);
  SafetensorsContents contents = parse_safetensors(files_.back()->bytes(), path.string());
  if (is_packed(contents)) {
    packed_ = take_packed(contents, files_.back()->bytes(), path.string());
  }
  contents.metadata.merge(metadata_);  // keeps what the new file says
  metadata_ = std::move(contents.metadata);
  std::set<std::string> names;
  for (HostTensor& tensor : contents.tensors) {
    const std::string name = tensor.name;
    if (!add_tensor(std::move(tensor))) {
      fail("{}: the tensor {} is in another shard too", path.string(), quoted(name));
    }
    names.insert(name);
  }
  return names;
}

bool Checkpoint::add_tensor(HostTensor tensor) {
  tensor.data = aligned(tensor.data, tensor.bytes(), bytes_per_element(tensor.dtype));
  if (tensor.quantised()) {
    const HostTensor scales = floats_of(tensor);
    tensor.scales =
        reinterpret_cast<const float*>(aligned(scales.data, scales.bytes(), alignof(float)));
  }
  const std::string name = tensor.name;
  return tensors_.emplace(name, std::move(tensor)).second;
}

const std::byte* Checkpoint::aligned(const std::byte* data, int64_t bytes, int64_t alignment) {
  if (reinterpret_cast<uintptr_t>(data) % alignment == 0) return data;
  copies_.push_back(std::make_unique<std::byte[]>(bytes));
  if (bytes > 0) std::memcpy(copies_.back().get(), data, bytes);
  return copies_.back().get();
}

void Checkpoint::rename_prefix(const std::string& from, const std::string& to) {
  std::map<std::string, HostTensor> renamed;
  for (const auto& [old_name, tensor] : tensors_) {
    HostTensor copy = tensor;
    if (old_name.starts_with(from)) copy.name = to + old_name.substr(from.size());
    const auto [place, fresh] = renamed.emplace(copy.name, std::move(copy));
    if (!fresh) {
      fail("{}: two tensors would share the name {}", path_.string(), quoted(place->first));
    }
  }
  tensors_ = std::move(renamed);
}

void Checkpoint::require_finite() const {
  require_finite(nullptr);
}

void Checkpoint::require_finite(const std::set<std::string>& names) const {
  require_finite(&names);
}

void Checkpoint::require_finite(const std::set<std::string>* names) const {
  std::string named;
  size_t bad = 0;
  for (const auto& [name, tensor] : tensors_) {
    if (names && !names->contains(name)) continue;
    const int64_t impossible = tensor.factor_group > 0 ? count_impossible_factors(tensor) : 0;
    if (impossible > 0) {
      fail("{}: factors of {} ({} of {}) are not -15 to 15; the file is damaged", path_.string(),
           quoted(name), impossible, tensor.shape[0] * tensor.panel_shape().factors());
    }
    const HostTensor floats = floats_of(tensor);
    const int64_t count = count_non_finite(floats);
    if (count == 0 || ++bad > kMaxNonFiniteNamed) continue;
    named += fmt::format("{}{} ({} of {} {})", bad == 1 ? "" : ", ", quoted(name), count,
                         floats.elements(), tensor.quantised() ? "scales" : "values");
  }
  if (bad == 0) return;
  if (bad > kMaxNonFiniteNamed) named += fmt::format(" and {} more", bad - kMaxNonFiniteNamed);
  fail("{}: NaN or infinity in the weights of {}; the files are damaged", path_.string(), named);
}

HostTensor TensorReader::require(const std::string& name, const std::vector<int64_t>& shape) {
  used_.insert(name);
  const auto place = checkpoint_.tensors().find(name);
  if (place == checkpoint_.tensors().end()) {
    problems_.push_back(fmt::format("{} is missing, wanted {}", quoted(name), shape_text(shape)));
  } else if (place->second.shape != shape) {
    problems_.push_back(fmt::format("{} is {}, wanted {}", quoted(name),
                                    shape_text(place->second.shape), shape_text(shape)));
  } else if (!is_float(place->second.dtype) && !(place->second.quantised() && shape.size() >= 2)) {
    problems_.push_back(fmt::format("{} is {}, wanted f32, f16 or bf16", quoted(name),
                                    kernels::name(place->second.dtype)));
  } else {
    return place->second;
  }
  return {.name = name, .dtype = DType::kF32, .shape = shape, .data = nullptr};
}

void TensorReader::require_linear(const std::string& module, int64_t outputs, int64_t inputs,
                                  LinearSource& source) {
  source.weights.push_back(require(module + ".weight", {outputs, inputs}));
  source.biases.push_back(require(module + ".bias", {outputs}));
  require_alike(source);
}

void TensorReader::require_matrix(const std::string& name, int64_t outputs, int64_t inputs,
                                  LinearSource& source) {
  source.weights.push_back(require(name, {outputs, inputs}));
  require_alike(source);
}

void TensorReader::require_alike(const LinearSource& source) {
  const HostTensor& last = source.weights.back();
  if (last.data == nullptr) return;  // noted
  const auto kind = [](const HostTensor& weight) {
    if (weight.in_pairs()) return std::string("of bf16 in panels");
    if (!weight.quantised()) return std::string("of floats");
    if (weight.factor_group > 0) return fmt::format("int4 in groups of {}", weight.factor_group);
    return fmt::format("quantised in groups of {}{}", weight.group,
                       weight.layout == Layout::kPanels ? " and packed" : "");
  };
  for (const HostTensor& other : source.weights) {
    if (other.data == nullptr || kind(other) == kind(last)) continue;
    problems_.push_back(fmt::format("{} is {}, but {}, which is multiplied with it, {}",
                                    quoted(last.name), kind(last), quoted(other.name),
                                    kind(other)));
    return;
  }
}

bool TensorReader::contains(const std::string& name) const {
  return checkpoint_.tensors().contains(name);
}

void TensorReader::finish() const {
  if (problems_.empty()) return;
  std::string text = fmt::format(
      "{}: {} of the model's tensors {} missing or do not fit:", checkpoint_.path().string(),
      problems_.size(), problems_.size() == 1 ? "is" : "are");
  for (size_t i = 0; i < std::min(problems_.size(), kMaxProblems); ++i) {
    text += "\n  " + problems_[i];
  }
  if (problems_.size() > kMaxProblems) {
    text += fmt::format("\n  and {} more", problems_.size() - kMaxProblems);
  }
  throw host::Error(text);
}

std::vector<std::string> TensorReader::unused() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    if (!used_.contains(name)) names.push_back(name);
  }
  return names;
}

}  // namespace ocelli::kernels
