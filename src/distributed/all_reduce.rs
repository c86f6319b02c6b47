use super::checks::{GRADIENT, check_length};
use super::comm::Comm;
use super::exchange::GradExchange;
use crate::error::{Result, check_finite};
use crate::kernel::Isa;
use crate::numeric::Real;
use crate::quant::{decode_bf16, encode_bf16};
use crate::state::{Dtype, Lookup, Record};

/// The mean of the workers' gradients, sent in full precision or in bfloat16.
///
/// *Use it when* the network is fast, or as the baseline of a compressed exchange.
///
/// In bfloat16, gradients are divided by the number of workers before they are summed, so that sums do
/// not overflow. bfloat16 has the range of `f32`, so small gradients are not lost by the division.
///
/// # Examples
/// ```
/// use eigenstep::distributed::{AllReduce, SingleProcess, GradExchange};
///
/// let mut gradient = [1.0f32, -2.0];
/// AllReduce::default().exchange(&SingleProcess, &mut gradient)?;
/// assert_eq!(gradient, [1.0, -2.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// S. Li and others, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", 2020.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllReduce {
    /// Whether gradients are sent in bfloat16.
    pub bf16: bool,
    sent: u64,
}

impl AllReduce {
    /// An exchange that sends gradients in bfloat16.
    pub fn bf16() -> Self {
        Self { bf16: true, sent: 0 }
    }
}

impl<R: Real> GradExchange<R> for AllReduce {
    fn exchange(&mut self, comm: &dyn Comm, gradient: &mut [R]) -> Result<()> {
        if !self.bf16 {
            mean(comm, gradient)?;
            self.sent += size_of_val(gradient) as u64;
            return Ok(());
        }
        let own = check_finite(GRADIENT, &*gradient);
        let workers = R::of(comm.size() as f64);
        let shares: Vec<R> = gradient.iter().map(|&x| x / workers).collect();
        let mut codes = vec![0; shares.len()];
        encode_bf16(Isa::detect(), &shares, &mut codes);
        let mut bytes: Vec<u8> = codes.iter().flat_map(|code: &u16| code.to_le_bytes()).collect();
        comm.all_reduce_sum(Dtype::Bf16, &mut bytes)?;
        own?;
        let words = bytes.as_chunks().0;
        codes.iter_mut().zip(words).for_each(|(code, &word)| *code = u16::from_le_bytes(word));
        let mut sums = shares;
        decode_bf16(Isa::detect(), &codes, &mut sums);
        check_finite("the sum of all gradients", &sums)?;
        gradient.copy_from_slice(&sums);
        self.sent += bytes.len() as u64;
        Ok(())
    }

    fn bytes_sent(&self) -> u64 {
        self.sent
    }

    fn save(&self, record: &mut Record<'_>) {
        record.count("sent", self.sent);
    }

    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        self.sent = lookup.count("sent")?;
        Ok(())
    }
}

/// Replaces `values` by their mean over all workers.
///
/// If a number of any worker is not finite, a sum overflows or lengths differ, all workers get an
/// error, and `values` have not changed.
pub(super) fn mean<R: Real>(comm: &dyn Comm, values: &mut [R]) -> Result<()> {
    let own = check_finite(GRADIENT, &*values);
    let mut bytes = Vec::with_capacity(size_of_val(values));
    R::write_le(values, &mut bytes);
    comm.all_reduce_sum(Dtype::of::<R>(), &mut bytes)?;
    own?;
    let workers = R::of(comm.size() as f64);
    let means: Vec<R> = R::read_le(&bytes).into_iter().map(|sum: R| sum / workers).collect();
    check_length(values.len(), means.len())?;
    check_finite("the sum of all gradients", &means)?;
    values.copy_from_slice(&means);
    Ok(())
}
