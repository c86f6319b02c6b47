//! Floating-point tensors of a state dict as numbers of the arithmetic type.

use super::dict::{Dtype, StateTensor};
use super::record::{Lookup, check_tensor};
use crate::error::Result;
use crate::kernel::Isa;
use crate::numeric::{Element, Real};
use crate::quant::decode_bf16;

/// Reads a tensor of `shape` in any floating-point type.
pub(super) fn read_floats<R: Real>(
    tensor: &StateTensor,
    shape: &[usize],
    name: &str,
    lookup: &Lookup<'_>,
) -> Result<Vec<R>> {
    check_tensor(tensor, shape, name, lookup)?;
    Ok(match tensor.dtype {
        Dtype::F64 => f64::read_le(&tensor.bytes).into_iter().map(R::of).collect(),
        Dtype::F32 => f32::read_le(&tensor.bytes).into_iter().map(|x| R::of(x.into())).collect(),
        Dtype::Bf16 => {
            let (words, _) = tensor.bytes.as_chunks();
            let codes: Vec<u16> = words.iter().map(|&word| u16::from_le_bytes(word)).collect();
            let mut values = vec![R::zero(); codes.len()];
            decode_bf16(Isa::detect(), &codes, &mut values);
            values
        }
        other => {
            return Err(lookup.problem(name, format!("expected F32, F64 or Bf16, found {other:?}")));
        }
    })
}
