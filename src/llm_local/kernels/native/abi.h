// The contract between Python and the native library: plain C structs and functions, no torch, no Python.
//
// kernels/layout.py mirrors every struct field by field; llm_abi_version() and llm_struct_bytes() let it notice when
// it does not. All sizes are in elements unless a name says bytes. Row-major matrices; a Linear is y = x W^T + b.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#pragma GCC visibility push(default)  // all else in the library is hidden
#endif

#define LLM_ABI_VERSION 2

// How the numbers of a weight matrix lie in memory.
enum LlmWeightKind {
  LLM_F32 = 0,   // [rows, cols] float32, row-major, any alignment
  LLM_BF16 = 1,  // [rows, cols] bfloat16, row-major, any alignment: a tensor of a mapped file is used in place
  LLM_Q8 = 2,    // packed blocks of 16 rows x 64 inputs: quants, then scales; 64-byte aligned (see packing.h)
  LLM_Q4 = 3,
};

enum LlmDtype { LLM_DTYPE_F32 = 0, LLM_DTYPE_BF16 = 1, LLM_DTYPE_F16 = 2 };

enum LlmStatus { LLM_OK = 0, LLM_NOT_FINITE = 1, LLM_OUT_OF_MEMORY = 2, LLM_BAD_ARGUMENT = 3 };

enum LlmActivation { LLM_SILU = 0, LLM_GELU_TANH = 1, LLM_GELU = 2, LLM_RELU = 3 };

// `weights` NULL: there is no such matrix. `bias` NULL: none.
typedef struct LlmLinear {
  int32_t kind;
  int32_t rows;  // outputs
  int32_t cols;  // inputs
  int32_t reserved;
  const void* weights;
  const float* bias;  // [rows]
} LlmLinear;

// Root-mean-square norm; `weight` NULL: there is no such norm. A model that stores w - 1 is given w.
typedef struct LlmNorm {
  const float* weight;
  float eps;
  int32_t reserved;
} LlmNorm;

// Rotary embedding: cos and sin `[positions, dim]` as the model's own module computes them, scaling included.
typedef struct LlmRope {
  const float* cos;
  const float* sin;
  int32_t dim;          // the first `dim` of a head's elements are rotated
  int32_t interleaved;  // 0: element i with i + dim/2; 1: element 2i with 2i + 1
} LlmRope;

typedef struct LlmLayer {
  LlmNorm input_norm;          // before attention
  LlmNorm attention_out_norm;  // after attention, before the residual sum
  LlmNorm mlp_norm;            // before the feed-forward part
  LlmNorm mlp_out_norm;        // after it, before the residual sum
  LlmNorm query_norm;          // per head, or over the whole row (LlmModel.norm_whole_row)
  LlmNorm key_norm;
  LlmLinear query, key, value, output;
  LlmLinear gate, up, down;  // down(activation(gate(x)) * up(x))
  const float* sinks;        // [heads] or NULL
  int32_t rope;              // index into LlmModel.ropes; -1: no rotation in this layer
  int32_t window;            // sliding window in tokens; 0: none
  float attention_scale;
  float softcap;  // 0: none
} LlmLayer;

typedef struct LlmModel {
  int32_t num_layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, num_ropes;
  int32_t activation;      // LlmActivation
  int32_t norm_whole_row;  // 1: query_norm and key_norm run over all heads together
  int32_t kv_dtype;        // LLM_DTYPE_F32 or LLM_DTYPE_BF16
  float embedding_scale, residual_scale, logit_scale;  // factors, 1 where the model has none
  float logit_softcap;                                 // 0: none
  LlmLinear embedding;  // rows are looked up
  LlmNorm final_norm;
  LlmLinear head;
  const LlmLayer* layers;
  const LlmRope* ropes;
} LlmModel;

// Where one layer of one sequence keeps its keys and values: `[kv_heads, capacity, head_dim]` each.
typedef struct LlmKV {
  void* keys;
  void* values;
  int64_t capacity;
  int64_t start;  // position of the first stored token
} LlmKV;

// `length` tokens at `offset` of the packed row: positions `past` .. `past + length` of the sequence whose layers are `kv`.
typedef struct LlmSegment {
  const LlmKV* kv;  // [num_layers]; the caller made room for the new tokens
  int32_t offset;
  int32_t length;
  int64_t past;
} LlmSegment;

typedef struct LlmBatch {
  const int32_t* token_ids;  // [num_tokens]
  const LlmSegment* segments;
  const int32_t* kept;  // [num_kept] rows of the packed row whose logits are wanted
  float* logits;        // [num_kept, vocab]
  int32_t num_tokens, num_segments, num_kept;
  // The layers of this call; num_layers 0: all that are left. A pass may go through the layers in several calls with
  // the same batch and scratch, one behind the other, so that the caller can look up in between.
  int32_t first_layer, num_layers, reserved;
} LlmBatch;

// One layer's attention over segments, for a model whose other parts run elsewhere. Appends k, v, then attends.
typedef struct LlmAttention {
  const void* query;  // [tokens, heads, head_dim]   in `dtype`, strides below
  const void* key;    // [tokens, kv_heads, head_dim]
  const void* value;
  void* output;       // [tokens, heads, head_dim] contiguous, in `dtype`
  int64_t query_token_stride, query_head_stride;
  int64_t key_token_stride, key_head_stride;
  int64_t value_token_stride, value_head_stride;
  int32_t dtype, kv_dtype;
  int32_t heads, kv_heads, head_dim, window;  // window 0: none
  float scale, softcap;
  const float* sinks;
} LlmAttention;

int32_t llm_abi_version(void);
size_t llm_struct_bytes(int32_t which);  // 0 Linear 1 Norm 2 Rope 3 Layer 4 Model 5 KV 6 Segment 7 Batch 8 Attention

// Use an OpenMP runtime that is already in the process (torch's), so that two thread pools never fight: its
// GOMP_parallel, omp_get_num_threads and omp_get_thread_num. NULLs: the library's own pool.
void llm_use_openmp(void* gomp_parallel, void* num_threads, void* thread_num);

// Instruction-set variants. `llm_variants`: comma-separated names built in AND usable on this CPU, best first.
const char* llm_variants(void);
const char* llm_variant(void);
int32_t llm_use_variant(const char* name);  // LLM_BAD_ARGUMENT: not built or not usable here

// Packing. `source` is `[rows, cols]` in `dtype` with `row_stride` elements between rows.
size_t llm_packed_bytes(int32_t kind, int32_t rows, int32_t cols);
int32_t llm_pack(int32_t kind, const void* source, int32_t dtype, int64_t row_stride, int32_t rows, int32_t cols,
                 void* packed, int32_t threads);
void llm_unpack(const LlmLinear* linear, float* out, int32_t threads);  // [rows, cols]

// y_i = x W_i^T + b_i for `num_parts` matrices that share x `[tokens, cols]`; each `outputs[i]` is `[tokens, rows_i]`.
// x and outputs are in `dtype` (float32 or bfloat16). A token's result does not depend on the tokens beside it.
int32_t llm_linear(const LlmLinear* parts, int32_t num_parts, const void* x, void* const* outputs, int32_t dtype,
                   int32_t tokens, int32_t threads);

int32_t llm_attention(const LlmAttention* attention, const LlmSegment* segments, int32_t num_segments, int32_t layer,
                      int32_t threads);

// The whole forward pass of a Llama-like decoder. `scratch` belongs to one caller at a time.
void* llm_scratch_new(void);
void llm_scratch_free(void* scratch);
int32_t llm_step(const LlmModel* model, const LlmBatch* batch, void* scratch, int32_t threads);

#ifdef __cplusplus
#pragma GCC visibility pop
}
#endif
