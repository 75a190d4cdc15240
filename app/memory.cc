#include "app/memory.h"

#include <algorithm>
#include <string_view>

#include "host/error.h"
#include "host/thread_pool.h"
#include "kernels/packing.h"
#include "llm/kv_cache.h"

namespace ocelli::app {

using kernels::HostTensor;

namespace {

constexpr int64_t kFloat = sizeof(float);
// What the smallest model leaves in a process: code, vocabulary, a picture in work.
constexpr int64_t kProgram = 32 << 20;
// Of each thread, with its scratch; it touches less, but ulimit counts it all.
constexpr int64_t kThread = 8 << 20;

double gigabytes(int64_t bytes) {
  return static_cast<double>(bytes) / 1e9;
}

// Whether a tensor is looked up row by row rather than multiplied with.
bool is_table(const HostTensor& tensor) {
  return tensor.name.ends_with("embed_tokens.weight") ||
         tensor.name.ends_with("position_embedding.weight");
}

// Layers as their tensors' names say it.
constexpr std::string_view kDecoderLayers = "model.layers.";
constexpr std::string_view kTowerLayers = "encoder.layers.";

bool is_of(std::string_view part, const HostTensor& tensor) {
  return tensor.name.find(part) != std::string::npos;
}

// What the parts of a model come to on a backend.
class WeightCount {
 public:
  WeightCount(const OpenedModel& model, const PipelineOptions& options)
      : backend_(options.backend.name),
        pack_(model.checkpoint.packed() == nullptr ? options.pack : std::nullopt) {
    const auto* llama = std::get_if<llm::Llama2Config>(&model.config.text);
    permutes_ = llama != nullptr && llama->pairs == llm::RotaryPairs::kInterleaved;
    tied_ = llama != nullptr && llama->tie_word_embeddings;
    const int layers =
        std::visit([](const auto& text) { return text.num_hidden_layers; }, model.config.text);
    last_layer_ = fmt::format("{}{}.", kDecoderLayers, layers - 1);
    for (const auto& [name, tensor] : model.checkpoint.tensors()) add(tensor);
    // The reference computes beside it.
    if (options.check) weights_ += values_ * kFloat;
  }

  int64_t mapped() const { return mapped_; }
  int64_t weights() const { return weights_; }

 private:
  void add(const HostTensor& tensor) {
    values_ += tensor.elements();
    const bool rotated =
        tensor.name.ends_with("q_proj.weight") || tensor.name.ends_with("k_proj.weight");
    if (permutes_ && rotated) weights_ += stored(tensor);
    if (backend_ == "cpu") {
      add_on_cpu(tensor);
    } else {
      weights_ += copied(tensor);
    }
    // A decoder loads the k and v of its last layer once more (llm/layered_decoder.h).
    const bool key_or_value = tensor.name.find(".k_proj.") != std::string::npos ||
                              tensor.name.find(".v_proj.") != std::string::npos;
    if (key_or_value && is_of(last_layer_, tensor)) {
      values_ += tensor.elements();
      weights_ += copied(tensor);
    }
  }

  // What loading a matrix or a bias copies; what is packed now is read where it was packed.
  int64_t copied(const HostTensor& tensor) const {
    const bool matrix = tensor.shape.size() > 1;
    if (backend_ == "cpu" && matrix) {
      return tensor.quantised() && tensor.layout == kernels::Layout::kRows ? stored(tensor) : 0;
    }
    const bool widened = backend_ != "u280-emulated" && !tensor.quantised();
    return widened ? tensor.elements() * kFloat : stored(tensor);
  }

  void add_on_cpu(const HostTensor& tensor) {
    const bool table = is_table(tensor);
    const bool classifier = tied_ && tensor.name.ends_with("embed_tokens.weight");
    const bool matrix = tensor.shape.size() > 1 && (!table || classifier);
    if (tensor.quantised()) {
      (tensor.layout == kernels::Layout::kPanels ? mapped_ : weights_) +=
          matrix ? stored(tensor) : 0;
      if (table) mapped_ += stored(tensor);
      return;
    }
    const bool packed = matrix && pack_;
    if (packed) weights_ += packed_bytes(tensor);
    if (tensor.shape.size() == 1) {
      weights_ += tensor.elements() * kFloat;
    } else if (!packed || table) {
      mapped_ += stored(tensor);
    }
  }

  // Of a matrix that is packed when the model is loaded.
  int64_t packed_bytes(const HostTensor& matrix) const {
    if (pack_->bf16 || matrix.elements() == 0) return matrix.elements() * 2;
    const bool int4 = pack_->factor_group > 0 && is_of(kDecoderLayers, matrix);
    const kernels::PanelFormat format = {pack_->group, int4 ? pack_->factor_group : 0};
    const kernels::PanelShape shape = kernels::PackedStack::shape_of(matrix, format);
    return shape.value_bytes() + shape.scales() * kFloat;
  }

  static int64_t stored(const HostTensor& tensor) {
    return tensor.bytes() + (tensor.quantised() ? tensor.scale_count() * kFloat : 0);
  }

  const std::string backend_;
  const std::optional<PackSettings> pack_;  // where weights are packed now
  bool permutes_ = false;
  bool tied_ = false;
  std::string last_layer_;  // what the names of its tensors hold
  int64_t mapped_ = 0;
  int64_t weights_ = 0;
  int64_t values_ = 0;
};

// Bytes of a value of activations.
struct RowBytes {
  int64_t hidden = kFloat;  // between an MLP's two products
  int64_t rounded = 1;      // in the copy that products with rounded weights read
};

// In the layers of a part of the model, as Ops::input_dtype has it on every instruction set but
// llama2.c's.
RowBytes row_bytes(const OpenedModel& model, const PipelineOptions& options,
                   std::string_view part) {
  bool floats = false;
  bool bf16 = options.pack && options.pack->bf16;
  for (const auto& [name, tensor] : model.checkpoint.tensors()) {
    if (tensor.shape.size() < 2 || !is_of(part, tensor)) continue;
    floats |= !options.pack && !tensor.quantised() && !tensor.in_pairs();
    bf16 |= tensor.in_pairs();
  }
  const bool waits = options.backend.name == "cpu" && !floats;
  return {.hidden = waits ? 2 : kFloat, .rounded = bf16 ? 2 : 1};
}

int64_t decoder_activations(const OpenedModel& model, const PipelineOptions& options,
                            const llm::DecoderLimits& limits) {
  RowBytes bytes = row_bytes(model, options, kDecoderLayers);
  if (!std::holds_alternative<llm::Phi2Config>(model.config.text)) bytes.hidden = kFloat;
  const auto count = [&](const auto& text) -> int64_t {
    const int64_t rows = limits.max_rows;
    const int64_t hidden = text.hidden_size;
    const int64_t intermediate = text.intermediate_size;
    // x and normed rows, q k v, context; the MLP's, and the widest of them rounded.
    int64_t floats = rows * (4 * hidden + 2 * text.kv_width());
    const int64_t others =
        rows * (intermediate * bytes.hidden + std::max(hidden, intermediate) * bytes.rounded);
    // Logits, twice: the sampler has its own.
    floats += 2 * limits.logit_rows() * int64_t{text.vocab_size};
    // What scores a text has x and logits of its own.
    if (limits.scored_rows > 0) {
      floats += rows * hidden + 2 * limits.logit_rows() * int64_t{text.vocab_size};
    }
    floats += limits.capacity * int64_t{text.head_dim()};  // angles
    return floats * kFloat + others;
  };
  return std::visit(count, model.config.text);
}

int64_t vision_activations(const OpenedModel& model, const PipelineOptions& options) {
  const ModelConfig& config = model.config;
  if (!config.vision) return 0;
  const RowBytes bytes = row_bytes(model, options, kTowerLayers);
  const vision::SiglipConfig& siglip = config.vision->siglip;
  const int64_t text = config.vision->connector.text_size;
  const int64_t per_patch = (2 * siglip.patch_values() + 6 * int64_t{siglip.hidden_size}) * kFloat +
                            siglip.intermediate_size * (bytes.hidden + bytes.rounded);
  // The connector's two buffers, and the rows that wait for their prompt.
  const int64_t rows = (2 + int64_t{options.sequences}) * config.vision->image_rows();
  return siglip.patches() * per_patch + rows * text * kFloat;
}

}  // namespace

MemoryForecast forecast_memory(const OpenedModel& model, const PipelineOptions& options) {
  const ModelConfig& config = model.config;
  const int threads =
      options.backend.threads > 0 ? options.backend.threads : host::available_processors();
  const llm::DecoderLimits limits = decoder_limits(config, options);
  const WeightCount count(model, options);
  MemoryForecast forecast;
  forecast.mapped = count.mapped();
  forecast.weights = count.weights();
  forecast.cache = std::visit(
      [&](const auto& text) { return llm::kv_cache_shape(text, limits).bytes(); }, config.text);
  forecast.activations =
      decoder_activations(model, options, limits) + vision_activations(model, options);
  forecast.program = kProgram + threads * kThread;
  forecast.sequences = options.sequences;
  if (options.check) {
    forecast.cache *= 2;
    forecast.activations *= 2;
  }
  return forecast;
}

int sequences_that_fit(const OpenedModel& model, PipelineOptions options, int64_t bytes, int most) {
  int fits = 1;
  for (int high = most; fits < high;) {
    options.sequences = fits + (high - fits + 1) / 2;
    if (forecast_memory(model, options).resident() <= bytes) {
      fits = options.sequences;
    } else {
      high = options.sequences - 1;
    }
  }
  return fits;
}

AvailableMemory limited_to(const AvailableMemory& available, int64_t bytes) {
  return host::limited_to(available, bytes, "--max-memory allows");
}

std::string memory_text(const MemoryForecast& forecast) {
  return fmt::format(
      "{:.2f} GB (weights {:.2f}, keys and values {:.2f}, activations {:.2f}, other {:.2f})",
      gigabytes(forecast.resident()), gigabytes(forecast.weights), gigabytes(forecast.cache),
      gigabytes(forecast.activations), gigabytes(forecast.program));
}

void require_memory(const MemoryForecast& forecast, const AvailableMemory& available) {
  if (forecast.resident() <= available.bytes) return;
  std::string advice;
  if (forecast.weights > available.bytes / 2) {
    advice = "; a packed model (ocelli quantize) is read where its file is mapped";
  } else if (forecast.sequences > 1) {
    advice = "; take fewer at once, or --kv-cache int8";
  } else if (forecast.cache > forecast.activations) {
    advice = "; --kv-cache int8 takes least";
  }
  host::fail("too little memory: this takes about {}, and {} {:.2f} GB{}", memory_text(forecast),
             available.limit, gigabytes(available.bytes), advice);
}

std::string memory_note(const MemoryForecast& forecast, const AvailableMemory& available) {
  if (forecast.resident() > available.ram) {
    return fmt::format("memory will be swapped: this takes about {}, and {:.2f} GB are free",
                       memory_text(forecast), gigabytes(available.ram));
  }
  if (forecast.mapped <= available.ram - forecast.resident()) return "";
  return fmt::format(
      "the model's files ({:.2f} GB) will be read again and again: of {:.2f} GB that are free this "
      "takes {:.2f}",
      gigabytes(forecast.mapped), gigabytes(available.ram), gigabytes(forecast.resident()));
}

}  // namespace ocelli::app
