#include "llm/decoder_config.h"

#include "host/error.h"

namespace ocelli::llm {

void DecoderConfig::read_shape(const host::JsonObject& json) {
  constexpr int kLargest = 1 << 20;
  hidden_size = json.integer("hidden_size", hidden_size, 1, kLargest);
  intermediate_size = json.integer("intermediate_size", intermediate_size, 1, kLargest);
  num_hidden_layers = json.integer("num_hidden_layers", num_hidden_layers, 1, 4096);
  num_attention_heads = json.integer("num_attention_heads", num_attention_heads, 1, kLargest);
  num_key_value_heads = json.integer("num_key_value_heads", num_attention_heads, 1, kLargest);
  vocab_size = json.integer("vocab_size", vocab_size, 1, 1 << 24);
  max_position_embeddings =
      json.integer("max_position_embeddings", max_position_embeddings, 1, kLargest);
  if (json.contains("rope_scaling")) {
    host::fail("{}: rope_scaling is not supported", json.where());
  }
  rope_theta = static_cast<float>(json.number("rope_theta", rope_theta, 1e-3, 1e12));
  if (hidden_size % num_attention_heads != 0) {
    host::fail("{}: hidden_size {} is not a multiple of num_attention_heads {}", json.where(),
               hidden_size, num_attention_heads);
  }
  if (num_attention_heads % num_key_value_heads != 0) {
    host::fail("{}: num_attention_heads {} is not a multiple of num_key_value_heads {}",
               json.where(), num_attention_heads, num_key_value_heads);
  }
}

}  // namespace ocelli::llm
