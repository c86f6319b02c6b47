//! Adam and AdamW with 8- and 4-bit state.

use super::compare::{Tolerance, same_length};
use super::options::{Spelling, assign};
use super::trajectory::{Tree, check_parameters, gradients, parameters};
use super::{Outcome, fail, json, kernels, skip};
use eigenstep::optim::WeightDecay;
use eigenstep::prelude::*;
use eigenstep::quant::{Blockwise, QuantMap, StatePolicy, code_table};
use serde_json::Value;

/// The options of the storage, besides those of the method.
const STORAGE: [&str; 6] =
    ["decoupled", "block", "m_map", "v_map", "mode", "min_quantized_elements"];

/// Runs a case of the method `U` with coded state, in `f32`.
pub fn run<U: Rule + Default>(case: &Value) -> Outcome {
    json::only(case, &["optimizer", "origin", "dtype", "config", "params", "steps", "notes"])?;
    if json::text(case, "dtype")? != "f32" {
        return Err(skip("coded state is compared in f32 only"));
    }
    let config = json::field(case, "config")?;
    let mut method = U::default();
    let mut options = json::object(case, "config")?.clone();
    STORAGE.iter().for_each(|key| drop(options.remove(*key)));
    let options = Spelling::new(&[], &[]).translate(&method, &options)?;
    assign(&mut method, &options);
    let coupled = match method.decay() {
        WeightDecay::Coupled(decay) => decay,
        _ => 0.0,
    };
    let decoupled = !matches!(method.decay(), WeightDecay::Coupled(_));
    if json::field(config, "decoupled")?.as_bool() != Some(decoupled) {
        return Err(fail("config: `decoupled` contradicts the name of the optimizer"));
    }
    let (spec, policy) = policy(config)?;
    let option = |name: &str| method.option(name).ok_or_else(|| fail(format!("no `{name}`")));
    let (lr, betas) = (option("lr")?, [option("betas.0")?, option("betas.1")?]);
    let mut optimizer = method.build::<f32>()?.with_state_policy(policy)?;
    let mut params = parameters::<f32>(case)?;
    let mut tensors = Vec::new();
    for name in params.keys() {
        tensors.push(Tensor::new(name, spec, betas)?);
    }
    // Looser than 1e-7: the torchao reference takes bias corrections in f32, which leaves
    // 1 − 0.999ᵗ wrong by up to 3e-5, and an update of size lr by half of that; the crate takes
    // them in f64.
    let tolerance = Tolerance { rtol: 1e-5, atol: 5e-5 * lr };
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        json::only(step, &["grads", "expect", "state"])?;
        let grads = gradients(step, &params)?;
        let before = params.clone();
        optimizer.step(&mut params, &grads)?;
        let dict = optimizer.state_dict();
        let mut extra = Tree::new();
        let mut check = || {
            for tensor in &mut tensors {
                let grad = grads.get(&tensor.name).and_then(Option::as_ref);
                if let (Some(grad), Some(param)) = (grad, before.get(&tensor.name)) {
                    let sum = |(g, p): (&f32, &f32)| f64::from(*g) + coupled * f64::from(*p);
                    let grad: Vec<f64> = grad.iter().zip(param).map(sum).collect();
                    tensor.check(&dict, &grad, json::field(step, "state")?)?;
                    extra.insert(tensor.name.clone(), tensor.extra(lr));
                }
            }
            check_parameters(step, "expect", &params, tolerance, &extra)
        };
        check().map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    Ok(())
}

/// The crate's name of the storage.
fn policy(config: &Value) -> Outcome<(Blockwise, StatePolicy)> {
    let (first, second) = (json::text(config, "m_map")?, json::text(config, "v_map")?);
    let (map, bits) = match (kernels::map(first)?, kernels::map(second)?) {
        ((QuantMap::Dynamic, 8, true), (QuantMap::Dynamic, 8, false)) => (QuantMap::Dynamic, 8),
        ((QuantMap::Dynamic, 4, true), (QuantMap::Dynamic, 4, false)) => (QuantMap::Dynamic, 4),
        ((QuantMap::Dynamic, 4, true), (QuantMap::DynamicLinear, 4, false)) => {
            (QuantMap::DynamicLinear, 4)
        }
        _ => return Err(skip(format!("the crate does not pair `{first}` with `{second}`"))),
    };
    let ties = kernels::ties(json::text(config, "mode")?)?;
    let spec = Blockwise { bits, block_size: json::count(config, "block")?, map, ties };
    let policy = StatePolicy {
        precision: Precision::Blockwise(spec),
        min_numel: json::count(config, "min_quantized_elements")?,
        whole_blocks: false,
    };
    Ok((spec, policy))
}

/// Both moments of one parameter.
struct Tensor {
    name: String,
    moments: [Moment; 2],
}

/// One moment.
struct Moment {
    slot: &'static str,
    /// Name in the case.
    letter: &'static str,
    beta: f64,
    /// Power of the gradient.
    power: i32,
    spec: Blockwise,
    table: &'static [f32],
    elements: Vec<Element>,
}

/// One element of a moment.
#[derive(Clone, Copy, Default)]
struct Element {
    /// What the reference's code stood for before the step.
    previous: f64,
    /// Whether the code once fell on the other side of the middle between two codes.
    flipped: bool,
}

/// A code table.
#[derive(Clone, Copy)]
struct Book(&'static [f32]);

impl Tensor {
    fn new(name: &str, spec: Blockwise, [beta1, beta2]: [f64; 2]) -> Outcome<Self> {
        let moment = |slot, letter, beta, power| -> Outcome<Moment> {
            let table = code_table(spec.map, spec.bits, power == 1)?;
            Ok(Moment { slot, letter, beta, power, spec, table, elements: Vec::new() })
        };
        let moments = [moment("exp_avg", "m", beta1, 1)?, moment("exp_avg_sq", "v", beta2, 2)?];
        Ok(Self { name: name.to_owned(), moments })
    }

    fn check(&mut self, dict: &StateDict, grad: &[f64], expect: &Value) -> Outcome {
        json::only(expect, &["m_absmax", "v_absmax", "m_codes", "v_codes"])?;
        let name = &self.name;
        self.moments.iter_mut().try_for_each(|moment| moment.check(name, dict, grad, expect))
    }

    /// Twice the learning rate times the largest gap between two codes, for flipped elements.
    fn extra(&self, lr: f64) -> Vec<f64> {
        let [first, second] = &self.moments;
        let allowed = 2.0 * lr * Book(first.table).gap().max(Book(second.table).gap());
        let either = first.elements.iter().zip(&second.elements);
        either.map(|(a, b)| if a.flipped || b.flipped { allowed } else { 0.0 }).collect()
    }
}

impl Moment {
    /// Compares codes and scales with those of the reference.
    fn check(&mut self, name: &str, dict: &StateDict, grad: &[f64], expect: &Value) -> Outcome {
        let (slot, letter) = (self.slot, self.letter);
        let tensor = |part: &str| {
            let key = format!("state.{name}.{slot}.{part}");
            dict.tensors.get(&key).ok_or_else(|| fail(format!("the crate has no `{key}`")))
        };
        let expected = json::integers(expect, &format!("{letter}_codes"))?;
        let codes = kernels::unpack(&tensor("codes")?.bytes, self.spec.bits, expected.len());
        same_length(&format!("codes of `{slot}`"), codes.len(), expected.len())?;
        let scales: Vec<f64> =
            <f32 as eigenstep::numeric::Element>::read_le(&tensor("scales")?.bytes)
                .into_iter()
                .map(f64::from)
                .collect();
        let maxima = json::numbers(json::field(expect, &format!("{letter}_absmax"))?)?;
        // Looser than equality, which holds for the codec alone: the reference rounds the moments
        // in another order (m·β + (1 − β)·g as bitsandbytes, v + (1 − β)·(g² − v) as torchao).
        let few_units = Tolerance { rtol: 1e-6, atol: 0.0 };
        few_units.slice(&format!("scales of `{slot}`"), &scales, &maxima)?;
        self.elements.resize(expected.len(), Element::default());
        let blocks = scales
            .iter()
            .zip(&maxima)
            .flat_map(|pair| std::iter::repeat_n(pair, self.spec.block_size));
        let (book, beta, power) = (Book(self.table), self.beta, self.power);
        let codes = codes.into_iter().zip(expected).zip(blocks).zip(grad);
        for (index, (element, ((codes, scales), grad))) in
            self.elements.iter_mut().zip(codes).enumerate()
        {
            let parts = [beta * element.previous, (1.0 - beta) * grad.powi(power)];
            element
                .check(book, codes, (*scales.0, *scales.1), parts)
                .map_err(|stop| stop.at(format!("codes of `{slot}`, element {index}")))?;
        }
        // a few flips are chance, many are a mistake
        let flips = self.elements.iter().filter(|element| element.flipped).count();
        if flips * 50 > self.elements.len() {
            return Err(fail(format!("{flips} codes of `{slot}` differ")));
        }
        Ok(())
    }
}

impl Element {
    /// Compares the crate's code with the reference's, `codes`, under their `scales`; the new
    /// moment was the sum of `parts`.
    fn check(
        &mut self,
        book: Book,
        codes: (u32, u32),
        scales: (f64, f64),
        parts: [f64; 2],
    ) -> Outcome {
        let (code, expected) = codes;
        let (own, reference) = (book.value(code) * scales.0, book.value(expected) * scales.1);
        self.previous = reference;
        if code == expected {
            return Ok(());
        }
        // rounding may decide only what is as close to the middle as rounding can bring it
        let [old, new] = parts;
        let middle = (book.value(code) + book.value(expected)) / 2.0;
        let distance = (old + new - middle * scales.1).abs();
        let near = distance <= 1e-6 * (old.abs() + new.abs());
        self.flipped |= near && code.abs_diff(expected) == 1;
        if self.flipped && (own - reference).abs() <= book.gap() * scales.1 {
            return Ok(());
        }
        Err(fail(format!("expected {expected}, got {code}")))
    }
}

impl Book {
    fn value(self, code: u32) -> f64 {
        self.0.get(code as usize).copied().map_or(f64::NAN, f64::from)
    }

    /// The largest gap between two codes.
    fn gap(self) -> f64 {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        pairs.map(|(low, high)| f64::from(high - low)).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes 1 and 2 of a table whose middle there is 0.375, under the scale 2.
    fn check(element: &mut Element, code: u32, moment: f64) -> Outcome {
        element.check(Book(&[0.0, 0.25, 0.5, 1.0]), (code, 1), (2.0, 2.0), [0.0, moment])
    }

    #[test]
    fn only_rounding_may_flip_a_code() {
        let mut element = Element::default();
        assert!(check(&mut element, 1, 0.6).is_ok() && !element.flipped);
        assert!(check(&mut element, 2, 0.751).is_err(), "not at the middle");
        assert!(check(&mut element, 2, 0.75 + 1e-7).is_ok() && element.flipped);
        assert!(check(&mut element, 2, 0.6).is_ok(), "what flipped once may stay apart");
        assert!(check(&mut element, 3, 0.6).is_err(), "but not by more than the largest gap");
    }
}
