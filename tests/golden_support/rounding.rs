//! Kernel cases of `bf16`: every bit has to be the same.

use super::compare::{equal, identical};
use super::{Outcome, json};
use eigenstep::numeric::{Element, bf16};
use eigenstep::optim::kahan_add;
use serde_json::Value;

/// Stochastic rounding, with the random bits given.
pub fn stochastic(input: &Value) -> Outcome {
    let (given, expect) = (json::field(input, "input")?, json::field(input, "expect")?);
    json::only(given, &["x", "rand16"])?;
    json::only(expect, &["bf16_bits", "value"])?;
    let x = json::reals::<f32>(given, "x")?;
    let random = json::integers(given, "rand16")?;
    let rounded = x.iter().zip(&random).map(|(&x, &random)| bf16::store_stochastic(x, random));
    let rounded: Vec<bf16> = rounded.collect();
    let bits: Vec<u32> = rounded.iter().map(|x| u32::from(x.to_bits())).collect();
    equal("bf16_bits", &bits, &json::integers(expect, "bf16_bits")?)?;
    let values: Vec<f32> = rounded.iter().map(|x| x.load()).collect();
    identical("value", &values, &json::reals::<f32>(expect, "value")?)
}

/// Updates with and without the compensation of what rounding loses.
pub fn kahan(input: &Value) -> Outcome {
    let given = json::field(input, "input")?;
    json::only(given, &["p0", "updates"])?;
    let mut p = halves(given, "p0")?;
    let mut plain = p.clone();
    let mut compensation = vec![bf16::default(); p.len()];
    let updates = json::list(given, "updates")?;
    for (index, (update, expect)) in updates.iter().zip(json::list(input, "expect")?).enumerate() {
        json::only(expect, &["p", "comp", "uncompensated"])?;
        let update = json::numbers(update)?;
        let steps = update.iter().map(|&u| bf16::store(u as f32));
        let all = p.iter_mut().zip(&mut compensation).zip(&mut plain).zip(steps);
        for (((p, compensation), plain), step) in all {
            kahan_add(p, compensation, step);
            *plain = bf16::store(plain.load() + step.load());
        }
        let check = |found: &[bf16], key: &str| {
            identical(&format!("update {index}, {key}"), found, &halves(expect, key)?)
        };
        check(&p, "p")?;
        check(&compensation, "comp")?;
        check(&plain, "uncompensated")?;
    }
    equal("number of updates", &[updates.len()], &[json::list(input, "expect")?.len()])
}

fn halves(value: &Value, key: &str) -> Outcome<Vec<bf16>> {
    Ok(json::reals::<f32>(value, key)?.into_iter().map(bf16::store).collect())
}
