/**
 * Typed operators that end or block the process when libtorch gets arguments of the right types that do not belong
 * together: their kernels rely on checks of the Python layer, or of the operator above them that calls them. Found with
 * libtorch 2.13.0 on a CPU; whatever is not named here has to stand random arguments (main.ts).
 */
export const LIBTORCH_ABORTS: readonly string[] = [
  // Reads behind a tensor's memory, an undefined tensor or an empty list, or divides by a size of zero.
  "_batch_norm_no_update",
  "_cdist_backward",
  "_cholesky_solve_helper",
  "_coalesce",
  "_convert_indices_from_coo_to_csr",
  "_convert_indices_from_csr_to_coo",
  "_dyn_quant_matmul_4bit",
  "_fft_r2c",
  "_foreach_copy",
  "_native_batch_norm_legit_no_stats",
  "_new_zeros_with_same_feature_meta",
  "_nnpack_spatial_convolution",
  "_pdist_backward",
  "_remove_batch_dim",
  "_reshape_alias_copy",
  "_slow_conv2d_backward_grad_input",
  "_sobol_engine_initialize_state_",
  "_stack",
  "_thnn_differentiable_gru_cell_backward",
  "_thnn_differentiable_lstm_cell_backward",
  "_upsample_lanczos2d_aa",
  "_upsample_lanczos2d_aa_backward",
  "_weight_norm_interface",
  "batch_norm_backward",
  "fractional_max_pool2d_backward",
  "fractional_max_pool2d_backward_grad_input",
  "fractional_max_pool3d_backward",
  "fractional_max_pool3d_backward_grad_input",
  "mkldnn_rnn_layer_backward",
  "native_batch_norm",
  "native_batch_norm_backward",
  "quantized_lstm_cell",
  "reflection_pad1d_backward",
  "reflection_pad1d_backward_grad_input",
  "reflection_pad2d_backward",
  "reflection_pad2d_backward_grad_input",
  // Counts down from the smallest integer, or loops over a number of bins that no float can step through.
  "choose_qparams_optimized",
  "linalg_matrix_power",
  "matrix_power",
];
