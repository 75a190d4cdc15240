// The shape that every decoder here has, by the names of Hugging Face's configurations.
#pragma once

#include "host/json.h"

namespace ocelli::llm {

struct DecoderConfig {
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_hidden_layers = 0;
  int num_attention_heads = 0;
  int num_key_value_heads = 0;
  int vocab_size = 0;
  int max_position_embeddings = 2048;
  float rope_theta = 10000;

  int head_dim() const { return hidden_size / num_attention_heads; }
  int kv_width() const { return num_key_value_heads * head_dim(); }

  // Takes all of these from `json`; what it does not say stays as it is, and there are as many
  // heads of keys as of queries. Throws host::Error for values out of range, heads that do not
  // divide the width or one another, or scaled rotations.
  void read_shape(const host::JsonObject& json);
};

}  // namespace ocelli::llm
