// The forward pass of a Llama-like decoder in one parallel region, in float32 between the linear layers.
//
// What comes between two linear layers is one phase over rows: the residual sum with the norms around it, or the norms,
// rotation and storing of heads. The last layer does what follows its keys and values for the kept rows only.
#pragma once
#include "linear.h"
#include "pointwise.h"
#include "step_check.h"

namespace llm {
namespace LLM_VARIANT {

// [num_tokens, width] each, but where said otherwise.
struct ForwardBuffers {
  float *residual, *normed;
  float *query, *key, *value, *attended;
  float* gated;
  float* branch;         // what will be added to the residual
  float* kept_residual;  // [num_kept, hidden]
  void* prepared;        // inputs of linear layers in the form of their weights
  QueryRun *runs, *kept_runs;
};

class Forward {
 public:
  Forward(const LlmModel& model, const LlmBatch& batch, int threads)
      : model_(model), batch_(batch), threads_(threads) {}

  // Lays the buffers out; with NULL it only counts. Returns the bytes.
  size_t lay_out(uint8_t* memory);
  // Fills in what is the same in all layers; after lay_out with memory.
  void begin();
  // By every member of the team.
  void run(Member& member);

 private:
  int64_t query_width() const { return static_cast<int64_t>(model_.heads) * model_.head_dim; }
  int64_t key_width() const { return static_cast<int64_t>(model_.kv_heads) * model_.head_dim; }
  // What a linear layer behind a norm that may be absent reads.
  const float* input(const LlmNorm& norm, const float* residual) const { return norm.weight ? b_.normed : residual; }

  template <class Body>
  void each_kept_run(Body&& body) const;
  size_t prepared_bytes() const;
  size_t partial_bytes() const;

  void embed(Member& member) const;
  void project_heads(Member& member, const LlmLayer& layer) const;
  void finish_heads(Member& member, int32_t layer) const;
  void attend_layer(Member& member, int32_t layer, bool kept_only) const;
  void feed_forward(Member& member, const LlmLayer& layer, const float* residual, int32_t rows) const;
  void finish_logits(Member& member) const;

  // outputs[i] = parts[i] x, [rows, parts[i].rows].
  void project(Member& member, const LlmLinear* const* parts, float* const* outputs, int32_t num_parts, const float* x,
               int32_t rows) const;
  void project(Member& member, const LlmLinear& part, float* output, const float* x, int32_t rows) const {
    const LlmLinear* const parts[] = {&part};
    float* const outputs[] = {output};
    project(member, parts, outputs, 1, x, rows);
  }
  // to[i] = from[i] + the branch, where `from` may gather its rows; the norm that follows goes to `normed`.
  struct Sum {
    const float* from;
    const int32_t* from_rows;  // NULL: the same rows
    float* to;
    const LlmNorm &branch_norm, &next_norm;
  };
  void add(Member& member, const Sum& sum, int32_t rows) const;

  const LlmModel& model_;
  const LlmBatch& batch_;
  const int threads_;
  ForwardBuffers b_{};
  Attention attention_{};
  int32_t num_kept_runs_ = 0;
};

inline void Forward::run(Member& member) {
  const float* residual = b_.residual;
  const int32_t first = batch_.first_layer;
  const int32_t end = batch_.num_layers == 0 ? model_.num_layers : first + batch_.num_layers;
  if (first == 0) embed(member);
  for (int32_t i = first; i < end; ++i) {
    const LlmLayer& layer = model_.layers[i];
    const bool last = i == model_.num_layers - 1;
    const int32_t rows = last ? batch_.num_kept : batch_.num_tokens;
    float* const sums = last ? b_.kept_residual : b_.residual;
    project_heads(member, layer);
    finish_heads(member, i);
    if (rows == 0) return;
    attend_layer(member, i, last);
    project(member, layer.output, b_.branch, b_.attended, rows);
    add(member, {residual, last ? batch_.kept : nullptr, sums, layer.attention_out_norm, layer.mlp_norm}, rows);
    residual = sums;
    feed_forward(member, layer, residual, rows);
    const LlmNorm& next = last ? model_.final_norm : model_.layers[i + 1].input_norm;
    add(member, {residual, nullptr, sums, layer.mlp_out_norm, next}, rows);
  }
  if (end < model_.num_layers) return;  // the scratch keeps the residual and what the next layer reads
  project(member, model_.head, batch_.logits, b_.normed, batch_.num_kept);
  finish_logits(member);
}

inline void Forward::embed(Member& member) const {
  const LlmNorm& norm = model_.layers[0].input_norm;
  member.each(batch_.num_tokens, [&](int64_t token) {
    float* const row = b_.residual + token * model_.hidden;
    lookup_row(model_.embedding, batch_.token_ids[token], model_.embedding_scale, row);
    if (norm.weight != nullptr) norm_row(norm, row, b_.normed + token * model_.hidden, model_.hidden);
  });
}

inline void Forward::project_heads(Member& member, const LlmLayer& layer) const {
  const LlmLinear* const parts[] = {&layer.query, &layer.key, &layer.value};
  float* const outputs[] = {b_.query, b_.key, b_.value};
  project(member, parts, outputs, 3, input(layer.input_norm, b_.residual), batch_.num_tokens);
}

// Norms and rotates the heads of one row in place.
static void finish_row_heads(const LlmModel& model, const LlmNorm& norm, const LlmRope* rope, int64_t position,
                             float* row, int32_t heads) {
  const int32_t dim = model.head_dim;
  if (norm.weight != nullptr && model.norm_whole_row) norm_row(norm, row, row, static_cast<int64_t>(heads) * dim);
  for (int32_t head = 0; head < heads; ++head, row += dim) {
    if (norm.weight != nullptr && !model.norm_whole_row) norm_row(norm, row, row, dim);
    if (rope != nullptr) rotate(*rope, rope->cos + position * rope->dim, rope->sin + position * rope->dim, row);
  }
}

inline void Forward::finish_heads(Member& member, int32_t index) const {
  const LlmLayer& layer = model_.layers[index];
  const LlmRope* const rope = layer.rope < 0 ? nullptr : model_.ropes + layer.rope;
  const AttentionShape shape = shape_of(model_, layer);
  const HeadRows keys{b_.key, LLM_DTYPE_F32, key_width(), model_.head_dim};
  const HeadRows values{b_.value, LLM_DTYPE_F32, key_width(), model_.head_dim};
  SegmentWalk walk(batch_.segments);
  member.each(batch_.num_tokens, [&](int64_t token) {
    int32_t at;
    const LlmSegment& segment = walk.find(token, &at);
    const int64_t position = segment.past + at;
    finish_row_heads(model_, layer.query_norm, rope, position, b_.query + token * query_width(), model_.heads);
    finish_row_heads(model_, layer.key_norm, rope, position, b_.key + token * key_width(), model_.kv_heads);
    append_token<float>(shape, segment.kv[index], position, token, keys, values);
  });
}

inline void Forward::attend_layer(Member& member, int32_t index, bool kept_only) const {
  Attention attention = attention_;
  attention.shape = shape_of(model_, model_.layers[index]);
  attention.layer = index;
  attention.runs = kept_only ? b_.kept_runs : b_.runs;
  attention.num_runs = kept_only ? num_kept_runs_ : batch_.num_segments;
  attend(member, attention);
}

inline void Forward::feed_forward(Member& member, const LlmLayer& layer, const float* residual, int32_t rows) const {
  const Activations x = prepare(member, layer.gate.kind, input(layer.mlp_norm, residual), model_.hidden, rows,
                                model_.hidden, b_.prepared);
  gated(member, layer.gate, layer.up, model_.activation, b_.gated, model_.intermediate, x);
  project(member, layer.down, b_.branch, b_.gated, rows);
}

inline void Forward::add(Member& member, const Sum& sum, int32_t rows) const {
  const int64_t width = model_.hidden;
  const Floats scale = splat(model_.residual_scale);
  member.each(rows, [&](int64_t row) {
    const float* const from = sum.from + (sum.from_rows != nullptr ? sum.from_rows[row] : row) * width;
    float *const branch = b_.branch + row * width, *const to = sum.to + row * width;
    if (sum.branch_norm.weight != nullptr) norm_row(sum.branch_norm, branch, branch, width);
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t rest = width - i;
      store_rest(to + i, fma(load_rest(branch + i, rest), scale, load_rest(from + i, rest)), rest);
    }
    if (sum.next_norm.weight != nullptr) norm_row(sum.next_norm, to, b_.normed + row * width, width);
  });
}

inline void Forward::finish_logits(Member& member) const {
  constexpr int64_t kSpan = 8192;
  const float scale = model_.logit_scale, cap = model_.logit_softcap;
  if (scale == 1.0f && cap <= 0.0f) return;
  const int64_t count = static_cast<int64_t>(batch_.num_kept) * model_.vocab;
  member.each((count + kSpan - 1) / kSpan, [&](int64_t task) {
    const int64_t end = (task + 1) * kSpan < count ? (task + 1) * kSpan : count;
    for (int64_t i = task * kSpan; i < end; i += kLanes) {
      const Floats x = load_rest(batch_.logits + i, end - i) * scale;
      store_rest(batch_.logits + i, cap > 0.0f ? tanh(x / cap) * cap : x, end - i);
    }
  });
}

inline void Forward::project(Member& member, const LlmLinear* const* parts, float* const* outputs, int32_t num_parts,
                          const float* x, int32_t rows) const {
  constexpr int32_t kMost = 3;
  int64_t strides[kMost];
  for (int32_t i = 0; i < num_parts; ++i) strides[i] = parts[i]->rows;
  for (int32_t first = 0, end; first < num_parts; first = end) {  // parts of one kind share their inputs
    const int32_t kind = parts[first]->kind, cols = parts[first]->cols;
    for (end = first + 1; end < num_parts && parts[end]->kind == kind;) ++end;
    const Activations a = prepare(member, kind, x, cols, rows, cols, b_.prepared);
    linears(member, parts + first, outputs + first, strides + first, end - first, a);
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
