//! Kernel cases: code tables, codes and scales, roundings.

use super::compare::{equal, identical};
use super::{
    Outcome, compressors, curvature, discrete, fail, gradients, grids, json, matrix_codecs, rules,
    second_order, skip, small_kernels, windows, zeroth_kernels,
};
use eigenstep::kernel::Isa;
use eigenstep::quant::{
    Blockwise, QuantMap, QuantizedTensor, Rank1Codec, Rank1Scales, Ties, code_table, unpack_nibbles,
};
use serde_json::Value;

/// Runs all inputs of a kernel case.
pub fn run(kernel: &str, case: &Value) -> Outcome {
    let one: fn(&Value) -> Outcome = match kernel {
        "codebook" => codebook,
        "blockwise_quantize" => blockwise,
        "rank1_quantize_4bit" => rank1,
        "bjorck" => second_order::bjorck,
        "inverse_pth_root" => second_order::inverse_root,
        "kronecker_power_iteration / caspr" => second_order::kronecker,
        "newton_schulz_quintic" => second_order::newton_schulz,
        "orthogonal_iteration" => second_order::orthogonal_iteration,
        "quantize_blockwise" => matrix_codecs::vector,
        "quantize_eigenvectors / quantize_offdiagonal" => matrix_codecs::matrices,
        "nre_ae" => matrix_codecs::error_metrics,
        "mfac_inverse_fisher_vector_product" => windows::mfac_product,
        "ggt_direction" => windows::ggt_direction,
        "kfac_precondition" => curvature::precondition,
        "asymmetric_4bit_block_quantiser" => windows::residual,
        "compressors" => compressors::compress,
        "low_rank_power_iteration" => compressors::low_rank,
        "error_feedback_accumulator" => compressors::accumulator,
        "philox" => zeroth_kernels::philox,
        "keyed_stream" => zeroth_kernels::stream,
        "rge" => zeroth_kernels::rge,
        "rge_block_sphere" => zeroth_kernels::block_sphere,
        "cge" => zeroth_kernels::cge,
        "es_antithetic" => zeroth_kernels::evolution,
        "fogzo" => zeroth_kernels::fogzo,
        "fogzo_beta" => zeroth_kernels::fogzo_beta,
        "quzo_estimate" => zeroth_kernels::quzo_estimate,
        "replay" => zeroth_kernels::replay,
        "restore" => zeroth_kernels::restore,
        "zo_grasp" => zeroth_kernels::grasp,
        "stochastic_round_int" => grids::stochastic_int,
        "stochastic_round_fp8" => grids::stochastic_fp8,
        "ste" => grids::ste,
        "fogzo_noise" => grids::noise,
        "work_split" => grids::split,
        "discrete_gradients" => discrete::gradients,
        "discrete_expectations" => discrete::expectations,
        "genetic_step" => discrete::genetic,
        "duality_maps" => small_kernels::duality_maps,
        "newton_schulz" => small_kernels::newton_schulz,
        "radam_rho" => small_kernels::radam_rho,
        "mup_lr" => small_kernels::mup_lr,
        "fp8_e4m3_blockwise" => small_kernels::fp8,
        "ademamix_schedules" => rules::ademamix_schedules,
        "gradient_transforms" => gradients::transforms,
        "gu_projection" => gradients::projection,
        "gradfix_mask" => gradients::masks,
        "history_clip" => gradients::history,
        #[cfg(feature = "half")]
        "bf16_stochastic_round" => super::rounding::stochastic,
        #[cfg(feature = "half")]
        "kahan_bf16" => super::rounding::kahan,
        #[cfg(not(feature = "half"))]
        "bf16_stochastic_round" | "kahan_bf16" => {
            return Err(skip(format!("{} `half`", super::NEEDS_FEATURE)));
        }
        _ => return Err(skip(format!("the crate has no kernel `{kernel}`"))),
    };
    json::only(case, &["kernel", "origin", "dtype", "cases", "notes", "decode"])?;
    if kernel == "stochastic_round_fp8" {
        grids::fp8_table(case)?;
    } else if case.get("decode").is_some() {
        return Err(skip("the runner does not read the field `decode`"));
    }
    for (index, input) in json::list(case, "cases")?.iter().enumerate() {
        json::only(input, &["label", "input", "config", "expect", "singular_values"])
            .and_then(|()| one(input))
            .map_err(|stop| stop.at(format!("case {index}")))?;
    }
    Ok(())
}

/// The crate's name of a code table: map, bits, and whether it is signed.
pub fn map(name: &str) -> Outcome<(QuantMap, u8, bool)> {
    Ok(match name {
        "dynamic_signed_8" => (QuantMap::Dynamic, 8, true),
        "dynamic_unsigned_8" => (QuantMap::Dynamic, 8, false),
        "dynamic_signed_4" => (QuantMap::Dynamic, 4, true),
        "dynamic_unsigned_4" => (QuantMap::Dynamic, 4, false),
        "linear_unsigned_nozero_4" => (QuantMap::DynamicLinear, 4, false),
        _ => return Err(skip(format!("the crate has no code table `{name}`"))),
    })
}

/// The rule of a reference for scales and ties.
pub fn ties(mode: &str) -> Outcome<Ties> {
    match mode {
        "bnb" => Ok(Ties::Lower),
        "torchao" => Ok(Ties::Upper),
        _ => Err(skip(format!("the crate has no quantisation as of `{mode}`"))),
    }
}

/// One code per element.
pub fn unpack(codes: &[u8], bits: u8, numel: usize) -> Vec<u32> {
    let mut wide = codes.to_vec();
    if bits == 4 {
        wide = vec![0; numel];
        unpack_nibbles(codes, &mut wide);
    }
    wide.into_iter().map(u32::from).collect()
}

/// Reads every key of the config `known`, and refuses others.
pub fn config<'c>(input: &'c Value, known: &[&str]) -> Outcome<&'c Value> {
    let config = json::field(input, "config")?;
    let unknown = json::object(input, "config")?.keys().find(|key| !known.contains(&key.as_str()));
    match unknown {
        Some(key) => Err(fail(format!("config: `{key}` is not understood"))),
        None => Ok(config),
    }
}

fn codebook(input: &Value) -> Outcome {
    // the tables of matrices are named by an object
    let Some(name) = json::field(input, "input")?.as_str() else {
        return matrix_codecs::levels(input);
    };
    let (map, bits, signed) = map(name)?;
    identical(name, code_table(map, bits, signed)?, &json::reals::<f32>(input, "expect")?)
}

/// Codes, scales, and what they decode to.
fn blockwise(input: &Value) -> Outcome {
    let config = config(input, &["map", "block", "mode"])?;
    let (map, bits, signed) = map(json::text(config, "map")?)?;
    let ties = ties(json::text(config, "mode")?)?;
    let spec = Blockwise { bits, block_size: json::count(config, "block")?, map, ties };
    let (x, expect) = (json::reals::<f32>(input, "input")?, json::field(input, "expect")?);
    let coded = QuantizedTensor::quantize(spec, signed, &x)?;
    let scales = json::reals::<f32>(expect, "absmax")?;
    identical("absmax", coded.scales(), &scales)?;
    let y = x.chunks(spec.block_size).zip(&scales).flat_map(|(block, &scale)| {
        block.iter().map(move |x| match ties {
            Ties::Lower => x * (1.0 / scale.max(1e-38)),
            _ => x / scale,
        })
    });
    check_codes(
        &unpack(coded.codes(), bits, x.len()),
        &coded.dequantize(),
        expect,
        &y.collect::<Vec<f32>>(),
        code_table(map, bits, signed)?,
    )
}

/// Codes under the scales of rows and columns.
fn rank1(input: &Value) -> Outcome {
    let config = config(input, &["shape", "map"])?;
    let (map, bits, signed) = map(json::text(config, "map")?)?;
    let shape = json::shape(config, "shape")?;
    let (x, expect) = (json::reals::<f32>(input, "input")?, json::field(input, "expect")?);
    // the reference takes the first of two equally near codes
    let codec = Rank1Codec::new(Blockwise { bits, block_size: 128, map, ties: Ties::Lower })?;
    let scales = Rank1Scales::of(&shape, &x)?;
    let (row, column) =
        (json::reals::<f32>(expect, "row_max")?, json::reals::<f32>(expect, "col_max")?);
    identical("row and column maxima", scales.maxima(), &[row.clone(), column.clone()].concat())?;
    let mut codes = vec![0; codec.codes_len(x.len())];
    codec.encode(Isa::detect(), &scales, 0, &x, &mut codes)?;
    let mut decoded = vec![0.0; x.len()];
    codec.decode(Isa::detect(), &scales, 0, &codes, &mut decoded)?;
    let bounds = row.iter().flat_map(|&row| column.iter().map(move |&column| row.min(column)));
    let y: Vec<f32> = x.iter().zip(bounds).map(|(x, bound)| x / bound).collect();
    let table = code_table(map, bits, signed)?;
    check_codes(&unpack(&codes, bits, x.len()), &decoded, expect, &y, table)
}

/// Codes have to be equal, but for elements `y` within one unit in the last place of the middle
/// between two codes; where they are equal, so are the bits they decode to.
fn check_codes(
    codes: &[u32],
    decoded: &[f32],
    expect: &Value,
    y: &[f32],
    table: &[f32],
) -> Outcome {
    let expected = json::integers(expect, "codes")?;
    let mut values = json::reals::<f32>(expect, "dequantized")?;
    let value = |code: u32| table.get(code as usize).copied().unwrap_or(f32::NAN);
    let mut adjusted = codes.to_vec();
    let pairs =
        adjusted.iter_mut().zip(&expected).zip(values.iter_mut()).zip(decoded.iter().zip(y));
    for (((code, &expected), number), (&decoded, &y)) in pairs {
        let middle = (value(*code) + value(expected)) / 2.0;
        let near = y >= middle.next_down() && y <= middle.next_up();
        if code.abs_diff(expected) == 1 && near {
            (*code, *number) = (expected, decoded);
        }
    }
    equal("codes", &adjusted, &expected)?;
    identical("dequantized", decoded, &values)
}
