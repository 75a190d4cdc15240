// Safetensors files for tests: well-formed ones from tensors, broken ones from any header text.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/tensor.h"

namespace ocelli::kernels {

// Length, header and data as they are.
inline std::string raw_safetensors(const std::string& header, const std::string& data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i));
  return file + header + data;
}

// Values of any trivial type as the bytes of a file.
template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class SafetensorsBuilder {
 public:
  // Adds a tensor; `dtype` as the format writes it, `data` its bytes.
  SafetensorsBuilder& add(const std::string& name, const std::string& dtype,
                          const std::vector<int64_t>& shape, const std::string& data) {
    entries_ += (entries_.empty() ? "\"" : ",\"") + name + R"(":{"dtype":")" + dtype +
                R"(","shape":)" + shape_text(shape) + R"(,"data_offsets":[)" +
                std::to_string(data_.size()) + "," + std::to_string(data_.size() + data.size()) +
                "]}";
    data_ += data;
    return *this;
  }

  // Adds any text between the braces of the header.
  SafetensorsBuilder& entry(const std::string& text) {
    entries_ += (entries_.empty() ? "" : ",") + text;
    return *this;
  }

  // The file; spaces after the header make the data begin at `remainder` modulo 8.
  std::string build(size_t remainder = 0) const {
    std::string header = "{" + entries_ + "}";
    while ((8 + header.size()) % 8 != remainder) header += ' ';
    return raw_safetensors(header, data_);
  }

 private:
  std::string entries_;
  std::string data_;
};

}  // namespace ocelli::kernels
