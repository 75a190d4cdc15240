// llama2.c model files, versions 0, 1 and 2: a header of seven numbers, then the tensors' bytes.
//
// The header alone says where every tensor stands, so it is checked before anything is used: each
// number is in its range, they fit one another, and the file is exactly as long as they ask for.
// Opening leaves the tensors' bytes on the disk.
//
// Source of the formats: export.py, run.c (version 0) and runq.c (version 2) of llama2.c.
#pragma once

#include <filesystem>

#include "kernels/checkpoint.h"

namespace ocelli::kernels {

// The header of a llama2.c file, under its names.
struct Llama2cHeader {
  int version = 0;
  int dim = 0;
  int hidden_dim = 0;
  int n_layers = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int vocab_size = 0;  // positive, whatever its sign in the file
  int seq_len = 0;
  bool shared_classifier = false;  // the embedding is the classifier as well
  int group_size = 0;              // values that share a scale; 0 unless version 2
};

// The checkpoint names the tensors as a Hugging Face Llama does ("model.embed_tokens.weight", …,
// "lm_head.weight" where the classifier is not shared), with shapes [outputs, inputs]. The rows of
// q_proj and k_proj stay in llama2.c's order, in which neighbours (2i, 2i + 1) of a head are
// rotated together. Norms are f32; matrices are f32, and in version 2 quantised.
struct Llama2cFile {
  Llama2cHeader header;
  Checkpoint checkpoint;
};

// Maps `path` and reads its header. Throws host::Error naming the file, the number at fault and its
// value.
Llama2cFile open_llama2c(const std::filesystem::path& path);

}  // namespace ocelli::kernels
