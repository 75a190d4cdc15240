// Every tensor of a model's weights, in the order in which the model loads them.
#pragma once

#include <functional>

#include "app/model.h"

namespace ocelli::app {

// What is done with the decoder's embeddings, with other tensors that are read row by row or as
// vectors, with matrices that are multiplied in the vision tower and the connector, with the
// decoder's, and with its last one.
struct PartVisitor {
  std::function<void(kernels::HostTensor&)> embedding;
  std::function<void(kernels::HostTensor&)> tensor;
  std::function<void(kernels::LinearSource&)> vision;
  std::function<void(kernels::LinearSource&)> linear;
  std::function<void(kernels::LinearSource&)> head;
};

// Calls the visitor for each part of `weights`, which it may change.
void visit_parts(ModelWeights& weights, const PartVisitor& visitor);

}  // namespace ocelli::app
