#!/usr/bin/env python3
"""Packs a tree of golden vectors (one JSON file per case) into one archive per family.

usage: pack.py SOURCE_TREE

Writes <folder>/<family>.json.gz next to this file: a gzipped JSON object, case name -> case. The
same input gives the same bytes.
"""
import gzip
import json
import pathlib
import re
import sys

# folder -> family -> beginning of the names of its cases; only what the crate implements
FAMILIES = {
    "first_order": {
        "sgd": ["sgd_", "groups_sgd_", "movinglr_sgd_"],
        "adam": ["adam_0"],
        "adamw": ["adamw_", "groups_adamw_", "movinglr_adamw_"],
        "adagrad": ["adagrad_"],
        "adadelta": ["adadelta_"],
        "adamax": ["adamax_"],
        "radam": ["radam_"],
        "sparse_adam": ["sparseadam_"],
        "rprop": ["rprop_"],
        "asgd": ["asgd_"],
        "rmsprop": ["rmsprop_"],
        "lion": ["lion_"],
        "lamb": ["lambpaper_"],
        "lamb_step_corrected": ["lamb_"],
        "lars": ["lars_"],
        "larc": ["larc_"],
        "came": ["came_"],
        "fromage": ["fromage_"],
        "sgdw": ["sgdw_"],
        "rmsprop_tf": ["rmsproptf_"],
        "ftrl": ["ftrl_"],
        "prodigy": ["prodigy_"],
        "schedule_free": ["schedulefree"],
        "d_adaptation": ["dadapt"],
        "sign_sgd": ["signsgd_"],
        "galore": ["galoreadamw_"],
        "ranger": ["ranger_"],
        "classp": ["classp_"],
        "adafactor": ["adafactor_", "adafactororiginal_"],
        "cautious": ["cautiousadamw_"],
        "grams": ["grams_"],
        "nadam": ["nadam_", "groups_nadam_", "movinglr_nadam_"],
        "novograd": ["novograd_"],
        "second_moment": ["adabelief_", "yogi_"],
        "normalized": ["adopt_", "laprop_"],
        "bounded": ["adabound_", "adamod_", "stableadamw_"],
        "momentum": [
            *("adai_", "ademamix_", "aggmo_", "pid_", "qhadam_", "qhm_"),
            "kernel_ademamix_schedules",
        ],
        "lookback": ["adan_", "adanclipped_", "diffgrad_", "mars_"],
        "madgrad": ["madgrad_"],
        "tiger": ["tiger_"],
        "amos": ["amos_"],
        "relatives": ["relatives_"],
        "sophia": ["sophiag_", "sophiah_"],
        "polyak": ["sps_", "momo_", "momoadam_"],
        "lookahead": ["lookahead_"],
        "sharpness": ["sam_", "ignite_"],
        "muon": ["muon_0", "muonexact_"],
        "scion": ["scion_"],
        "apollo": ["apollo_"],
        "lowbit": ["adam_lowbit_"],
        "kernels": [
            "kernel_codebooks",
            "kernel_blockwise_quant",
            "kernel_rank1_quant",
            "kernel_bf16_stochastic_round",
            "kernel_kahan_bf16",
        ],
        "gradients": ["kernel_gradient_transforms", "kernel_gu_projection", "kernel_gradfix_mask"],
        "clips": ["kernel_history_clip"],
        "small_kernels": [
            *("kernel_duality_maps", "kernel_newton_schulz", "kernel_radam_rho", "kernel_mup_lr"),
            "kernel_fp8_blockwise",
        ],
    },
    "curvature": {
        "adahessian": ["adahessian_"],
        "sophia": ["sophia_g_"],
    },
    "second_order": {
        "muon": ["muon_"],
        "shampoo4bit": ["shampoo4bit_"],
        "shampoo4bit_authors": ["official_shampoo4bit_"],
        "distributed_shampoo": [
            *(f"fb_shampoo_{name}" for name in (
                *("beta", "conv_", "default_", "drop_", "eigendecomposed_", "ema_", "exponent_"),
                *("gpa", "graft_", "kl_", "merged_", "momentum_", "root_", "schedule_free"),
                *("shampoo_squared_", "sign_", "spectral_", "trace_", "wd_"),
            )),
        ],
        "distributed_shampoo_mixed": ["fb_mixed_"],
        "soap": ["soap_", "fb_shampoo_soap_"],
        "kernels_linalg": [
            "kernel_bjorck",
            "kernel_inverse_root",
            "kernel_kronecker_caspr",
            "kernel_newton_schulz",
            "kernel_qr_iteration",
        ],
        "kernels_codecs": [
            "kernel_codebooks",
            "kernel_quantize_",
            "kernel_error_metrics",
        ],
    },
    "error_feedback": {
        "low_dimensional": ["galore_", "ldadam_"],
        "mfac": ["mfac_"],
        "ggt": ["ggt_"],
        "microadam": ["microadam_"],
        "feedback": ["ef_adagrad_"],
        "exchange": ["distributed_", "powersgd_"],
        "kernels": [
            "kernel_mfac_product",
            "kernel_ggt_direction",
            "kernel_error_quant4",
            "kernel_compressors",
            "kernel_power_iteration",
            "kernel_error_feedback",
        ],
    },
    "curvature": {
        "kfac": ["kfac_"],
    },
    "zeroth_order": {
        "grids": ["sr_", "ste", "fogzo_noise", "work_split"],
        "discrete": ["discrete_"],
        "genetic": ["genetic_"],
        "kernels": ["philox_", "estimator_", "quzo_estimate", "fogzo_beta", "fogzo_estimate", "replay_", "restore_", "zo_grasp"],
        "runs": ["traj_", "quzo_traj"],
    },
    "schedulers": {
        "averages": ["average_"],
        "packages": ["packages_"],
        "all": [
            *("lambda", "multiplicative", "step_", "multistep", "constant", "linear", "exponential"),
            *("polynomial", "cosine", "cyclic", "onecycle", "sequential", "chained", "swalr"),
            *("closed", "plateau", "wsd", "inverse_sqrt", "rex", "noam", "warmup"),
            *("clip_grad", "agc", "grad_scaler", "layerwise"),
        ]
    },
}


def shorten(text):
    """Numbers without a needless fraction or exponent: 0.0 -> 0, 1e-05 -> 1e-5."""
    text = re.sub(r"(?<=[\[,:])(-?[1-9]\d*|0)\.0(?=[\],}])", r"\1", text)
    return re.sub(r"e-0(\d)", r"e-\1", text)


def main():
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent
    for folder, families in FAMILIES.items():
        for family, prefixes in families.items():
            paths = [p for prefix in prefixes for p in (source / folder).glob(prefix + "*.json")]
            cases = {path.stem: json.loads(path.read_text()) for path in sorted(paths)}
            text = shorten(json.dumps(cases, separators=(",", ":"), sort_keys=True)) + "\n"
            assert json.loads(text) == cases
            archive = target / folder / (family + ".json.gz")
            archive.parent.mkdir(exist_ok=True)
            archive.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
            print(f"{folder}/{family}: {len(cases)} cases, {archive.stat().st_size} bytes")


if __name__ == "__main__":
    main()
