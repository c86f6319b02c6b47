//! Optimizer state in 16, 8 or 4 bits per element: formats, codes and scales.
//!
//! A block of `block_size` consecutive elements shares one scale, its largest magnitude; every
//! element is stored as the index of the nearest entry of a fixed table:
//!
//! ```text
//! scale = max |x| over the block
//! code  = the i for which table[i] is nearest to x / scale
//! x̂     = table[code] · scale
//! ```
//!
//! [`Precision`] names the formats; pass one to
//! [`with_state_precision`](crate::optim::Optim::with_state_precision). [`StatePolicy`] says which tensors
//! use it, [`Codec`] encodes and decodes the chunks of the optimizer engine, [`QuantizedTensor`] owns a
//! coded tensor.
//!
//! Matrices have formats of their own, with blocks inside a column or row: [`MatrixCodec`] and its
//! maps, [`QuantizedColumns`] for eigenvectors, [`QuantizedSymmetric`] for inverse roots,
//! [`QuantizedTriangular`] for Cholesky factors.
//!
//! # Bytes per element
//! | format | signed slot | unsigned slot |
//! |---|---|---|
//! | [`Precision::Full`] | 4 | 4 |
//! | [`Precision::Bf16`] | 2 | 2 |
//! | [`Precision::INT8_LINEAR`], [`INT8_DYNAMIC`](Precision::INT8_DYNAMIC), [`INT8_TORCHAO`](Precision::INT8_TORCHAO) | 1 + 4/256 | 1 + 4/256 |
//! | [`Precision::INT4`] | 1/2 + 4/128 | 1/2 + 4/128 |
//! | [`Precision::INT4_LPMM`], `m × n` | 1/2 + 4/128 | 1/2 + 4(m + n)/(mn) |
//!
//! With `f64` updates the scales are `f64`, and take 8 bytes.
//!
//! # Values that are not finite
//! A block that holds a NaN gets the scale NaN and codes 0: all of it decodes to NaN. An infinity, such
//! as the square of a gradient of 1e30, is stored as a quarter of the largest number: the other elements
//! of its block are then coarse, but finite. With rank-1 scales only the element itself is affected, see
//! [`Rank1Codec`].
//!
//! # Precision of the codes
//! The code is chosen, and the table read, in `f32` for every [`Real`](crate::numeric::Real); scale,
//! quotient and product are in the type of the update. Every instruction set gives the same bits.
//!
//! # Sources
//! Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", 2022
//! (bitsandbytes); Li, Chen, Zhu, "Memory Efficient Optimizers with 4-bit States", 2023 (lpmm);
//! PyTorch, torchao (`torchao.optim`).

// Floor 1.

mod bf16;
mod blockwise;
mod code_table;
mod codec;
mod dynamic;
mod linear;
mod matrix;
mod nibble;
mod pack;
mod precision;
mod quant_map;
mod rank1;
mod tensor;
mod tile;

pub(crate) use bf16::bf16_value;
pub use bf16::{decode_bf16, encode_bf16};
pub use blockwise::Blockwise;
pub use code_table::code_table;
pub use codec::Codec;
pub use matrix::{
    MatrixCodec, MatrixMap, QuantizedColumns, QuantizedSymmetric, QuantizedTriangular,
};
pub use pack::{pack_nibbles, unpack_nibbles};
pub use precision::{Precision, SlotFormat, StatePolicy};
pub use quant_map::{QuantMap, Ties};
pub use rank1::{Rank1Codec, Rank1Maxima, Rank1Scales};
pub use tensor::QuantizedTensor;
