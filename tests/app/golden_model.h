// A small model beside what the reference implementation computed with it, on a backend.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "app/model.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::app {

struct GoldenCase {
  std::string model;  // a directory with a golden.safetensors
  kernels::BackendOptions backend;
};

// Each of the models on every backend and instruction set.
inline std::vector<GoldenCase> golden_cases(const std::vector<std::string>& models) {
  std::vector<GoldenCase> cases;
  for (const std::string& model : models) {
    for (const std::string& name : kernels::backend_names()) {
      if (name != "cpu") cases.push_back({model, {name, 0, ""}});
    }
    for (const kernels::cpu::KernelTable* table : kernels::cpu::supported_tables()) {
      cases.push_back({model, {"cpu", 2, table->isa}});
    }
  }
  return cases;
}

inline std::string golden_case_name(const testing::TestParamInfo<GoldenCase>& test) {
  std::string name = test.param.model + "_" + test.param.backend.name + test.param.backend.isa;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}

class GoldenModel : public testing::TestWithParam<GoldenCase> {
 protected:
  // `models`: below tests/golden, where the case's model is.
  explicit GoldenModel(const std::string& models)
      : directory_(std::filesystem::path(OCELLI_SOURCE_DIR) / "tests/golden" / models /
                   GetParam().model),
        golden_(kernels::Checkpoint::open(directory_ / "golden.safetensors")),
        model_(open_model(directory_)),
        ops_(kernels::make_backend(GetParam().backend)) {
    kernels::TensorReader reader(model_.checkpoint);
    weights_ = read_weights(reader, model_.config);
    reader.finish();
  }

  const kernels::HostTensor& golden(const std::string& name) const {
    return golden_.tensors().at(name);
  }
  std::vector<int32_t> integers(const std::string& name) const {
    const kernels::HostTensor& tensor = golden(name);
    std::vector<int32_t> values(tensor.elements());
    std::memcpy(values.data(), tensor.data, tensor.bytes());
    return values;
  }
  std::vector<float> floats(const std::string& name) const {
    const kernels::HostTensor& tensor = golden(name);
    std::vector<float> values(tensor.elements());
    kernels::convert_to_f32(tensor.dtype, tensor.data, tensor.elements(), values.data());
    return values;
  }

  void expect_golden(const kernels::Tensor& found, const std::string& name) const {
    // Of a stage's largest magnitude. fp32 against fp64 differs by 1.5e-6 at most; the least
    // mistake in the mathematics that we know of (one GELU for the other) by 1e-4.
    constexpr float kTolerance = 2e-5F;
    SCOPED_TRACE(name);
    const std::vector<float> expected = floats(name);
    ASSERT_EQ(static_cast<size_t>(found.rows) * found.cols, expected.size());
    std::vector<float> values(expected.size());
    ops_->read(found, values);
    float largest = 0;
    for (const float value : expected) largest = std::max(largest, std::fabs(value));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], expected[i], kTolerance * largest) << "element " << i;
    }
  }

  std::filesystem::path directory_;
  kernels::Checkpoint golden_;
  OpenedModel model_;
  std::unique_ptr<kernels::Ops> ops_;
  ModelWeights weights_;
};

}  // namespace ocelli::app
