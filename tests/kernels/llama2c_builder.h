// llama2.c files for tests: any header, and bodies in which every value tells whose it is.
#pragma once

#include <cstdint>
#include <string>

#include "tests/kernels/safetensors_builder.h"

namespace ocelli::kernels {

// The numbers of a header as the file stores them, valid or not.
struct Llama2cFields {
  int version = 0;
  int32_t dim = 8;
  int32_t hidden_dim = 12;
  int32_t n_layers = 2;
  int32_t n_heads = 4;
  int32_t n_kv_heads = 2;
  int32_t vocab_size = 5;  // below zero in version 0: an untied classifier
  int32_t seq_len = 3;
  int shared_classifier = 1;  // versions 1 and 2
  int32_t group_size = 4;     // version 2
};

// Whose value it is: the tensors of the format under llama2.c's names, in alphabetical order.
enum class Llama2cTensor {
  kEmbed,
  kRmsAtt,
  kRmsFfn,
  kRmsFinal,
  kW1,
  kW2,
  kW3,
  kWcls,
  kWk,
  kWo,
  kWq,
  kWv
};

// Value `i` of a tensor in fp32, and in Q8_0 the int8 value and the scale of group `i`.
inline float llama2c_float(Llama2cTensor tensor, int layer, int64_t i) {
  return static_cast<float>((static_cast<int>(tensor) * 10 + layer) * 1000) + static_cast<float>(i);
}
inline int8_t llama2c_int8(Llama2cTensor tensor, int layer, int64_t i) {
  return static_cast<int8_t>((static_cast<int>(tensor) * 10 + layer + i) % 255 - 127);
}
inline float llama2c_scale(Llama2cTensor tensor, int layer, int64_t i) {
  return llama2c_float(tensor, layer, i) / 1024;
}

inline std::string llama2c_header(const Llama2cFields& f) {
  const std::string numbers = bytes_of<int32_t>(
      {f.dim, f.hidden_dim, f.n_layers, f.n_heads, f.n_kv_heads, f.vocab_size, f.seq_len});
  if (f.version == 0) return numbers;
  std::string header = bytes_of<int32_t>({0x616B3432, f.version}) + numbers;
  header += static_cast<char>(f.shared_classifier);
  if (f.version == 2) header += bytes_of<int32_t>({f.group_size});
  header.resize(256, '\0');
  return header;
}

// What follows a valid header.
class Llama2cBody {
 public:
  explicit Llama2cBody(const Llama2cFields& fields) : f_(fields) {}

  std::string build() {
    using enum Llama2cTensor;
    const int64_t dim = f_.dim;
    const int64_t vocab = f_.vocab_size < 0 ? -int64_t{f_.vocab_size} : f_.vocab_size;
    if (f_.version == 0) {
      matrix(kEmbed, 1, vocab * dim);
      floats(kRmsAtt, f_.n_layers, dim);
      attention();
      floats(kRmsFfn, f_.n_layers, dim);
      mlp();
      floats(kRmsFinal, 1, dim);
      out_ += std::string(2 * sizeof(float) * f_.seq_len * (dim / f_.n_heads / 2), '\xFF');
      if (f_.vocab_size < 0) matrix(kWcls, 1, vocab * dim);
    } else {
      floats(kRmsAtt, f_.n_layers, dim);
      floats(kRmsFfn, f_.n_layers, dim);
      floats(kRmsFinal, 1, dim);
      matrix(kEmbed, 1, vocab * dim);
      attention();
      mlp();
      if (f_.shared_classifier == 0) matrix(kWcls, 1, vocab * dim);
    }
    return out_;
  }

 private:
  void floats(Llama2cTensor tensor, int layers, int64_t size) {
    for (int layer = 0; layer < layers; ++layer) {
      for (int64_t i = 0; i < size; ++i) out_ += bytes_of<float>({llama2c_float(tensor, layer, i)});
    }
  }
  void matrix(Llama2cTensor tensor, int layers, int64_t size) {
    if (f_.version != 2) return floats(tensor, layers, size);
    for (int layer = 0; layer < layers; ++layer) {
      for (int64_t i = 0; i < size; ++i) out_ += static_cast<char>(llama2c_int8(tensor, layer, i));
      for (int64_t i = 0; i < size / f_.group_size; ++i) {
        out_ += bytes_of<float>({llama2c_scale(tensor, layer, i)});
      }
    }
  }
  void attention() {
    const int64_t square = int64_t{f_.dim} * f_.dim;
    for (const auto tensor : {Llama2cTensor::kWq, Llama2cTensor::kWk, Llama2cTensor::kWv}) {
      const bool is_q = tensor == Llama2cTensor::kWq;
      matrix(tensor, f_.n_layers, is_q ? square : square / f_.n_heads * f_.n_kv_heads);
    }
    matrix(Llama2cTensor::kWo, f_.n_layers, square);
  }
  void mlp() {
    for (const auto tensor : {Llama2cTensor::kW1, Llama2cTensor::kW2, Llama2cTensor::kW3}) {
      matrix(tensor, f_.n_layers, int64_t{f_.dim} * f_.hidden_dim);
    }
  }

  Llama2cFields f_;
  std::string out_;
};

inline std::string llama2c_file(const Llama2cFields& fields) {
  return llama2c_header(fields) + Llama2cBody(fields).build();
}

}  // namespace ocelli::kernels
