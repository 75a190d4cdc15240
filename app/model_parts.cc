#include "app/model_parts.h"

namespace ocelli::app {
namespace {

void visit(vision::SiglipWeights& weights, const PartVisitor& visitor) {
  visitor.vision(weights.patch_embedding);
  visitor.tensor(weights.position_embedding);
  for (vision::SiglipWeights::Layer& layer : weights.layers) {
    visitor.tensor(layer.norm1_weight);
    visitor.tensor(layer.norm1_bias);
    visitor.vision(layer.qkv);
    visitor.vision(layer.out);
    visitor.tensor(layer.norm2_weight);
    visitor.tensor(layer.norm2_bias);
    visitor.vision(layer.fc1);
    visitor.vision(layer.fc2);
  }
}

void visit(llm::Phi2Weights& weights, const PartVisitor& visitor) {
  visitor.embedding(weights.embed_tokens);
  for (llm::Phi2Weights::Layer& layer : weights.layers) {
    visitor.tensor(layer.norm_weight);
    visitor.tensor(layer.norm_bias);
    visitor.linear(layer.qkv);
    visitor.linear(layer.dense);
    visitor.linear(layer.fc1);
    visitor.linear(layer.fc2);
  }
  visitor.tensor(weights.final_norm_weight);
  visitor.tensor(weights.final_norm_bias);
  visitor.head(weights.lm_head);
}

void visit(llm::Llama2Weights& weights, const PartVisitor& visitor) {
  visitor.embedding(weights.embed_tokens);
  for (llm::Llama2Weights::Layer& layer : weights.layers) {
    visitor.tensor(layer.input_layernorm);
    visitor.linear(layer.qkv);
    visitor.linear(layer.o_proj);
    visitor.tensor(layer.post_attention_layernorm);
    visitor.linear(layer.gate_proj);
    visitor.linear(layer.up_proj);
    visitor.linear(layer.down_proj);
  }
  visitor.tensor(weights.norm);
  visitor.head(weights.lm_head);
}

}  // namespace

void visit_parts(ModelWeights& weights, const PartVisitor& visitor) {
  if (weights.siglip) visit(*weights.siglip, visitor);
  if (weights.connector) {
    for (kernels::LinearSource& layer : weights.connector->layers) visitor.vision(layer);
  }
  std::visit([&](auto& text) { visit(text, visitor); }, weights.text);
}

}  // namespace ocelli::app
