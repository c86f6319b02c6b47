//! A coded tensor that owns its memory.

use super::{Blockwise, Codec};
use crate::error::Result;
use crate::kernel::isa::Isa;
use crate::numeric::Real;

/// A flat tensor in 8 or 4 bits with one scale per block.
///
/// ```
/// use eigenstep::quant::{Blockwise, QuantizedTensor};
///
/// let x: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
/// let coded = QuantizedTensor::quantize(Blockwise::default(), true, &x)?;
/// assert_eq!(coded.bytes(), 1000 + 4 * 4);
/// let restored = coded.dequantize();
/// assert!(x.iter().zip(&restored).all(|(x, y)| (x - y).abs() <= 0.5 / 127.0 + 1e-6));
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct QuantizedTensor<R> {
    codec: Codec,
    len: usize,
    codes: Vec<u8>,
    scales: Vec<R>,
}

impl<R: Real> QuantizedTensor<R> {
    /// Codes `x`. With `signed = false`, which has the finer table, `x` must hold no negative number.
    ///
    /// # Errors
    /// Those of [`Blockwise::validate`].
    pub fn quantize(spec: Blockwise, signed: bool, x: &[R]) -> Result<Self> {
        let codec = spec.codec(signed)?;
        let (mut codes, mut scales) = codec.zeros(x.len());
        codec.encode_fitting(Isa::detect(), x, &mut codes, &mut scales);
        Ok(Self { codec, len: x.len(), codes, scales })
    }

    /// The numbers that the codes stand for.
    pub fn dequantize(&self) -> Vec<R> {
        let mut out = vec![R::zero(); self.len];
        self.codec.decode_fitting(Isa::detect(), &self.codes, &self.scales, &mut out);
        out
    }

    /// The codes, one or two per byte.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The scale of every block.
    pub fn scales(&self) -> &[R] {
        &self.scales
    }

    /// The format and its tables.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory held by codes and scales.
    pub fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(self.scales.as_slice())
    }
}
