//! Tiles of AVX-512 in assembly: compilers rotate these loops and spill the sums. One step of `k` loads a vector or two
//! of `B`, then for each row broadcasts an element of `A` and adds its products; the loads run ahead of the arithmetic by
//! themselves, so that steps are not unrolled.
//!
//! Registers: the sums of row `r` in zmm`r` (one vector) or zmm`2r` and zmm`2r + 1` (two), `B` in zmm28 and zmm29, the
//! elements of `A` by turns in zmm30 and zmm31. Mask k1 covers the columns of the last vector.

use super::tile::{Reads, TileFunction};
use core::arch::asm;

/// The register of a row's sums, for its first and its second vector of two.
macro_rules! first {
    (0) => {
        "zmm0"
    };
    (1) => {
        "zmm2"
    };
    (2) => {
        "zmm4"
    };
    (3) => {
        "zmm6"
    };
    (4) => {
        "zmm8"
    };
    (5) => {
        "zmm10"
    };
    (6) => {
        "zmm12"
    };
    (7) => {
        "zmm14"
    };
    (8) => {
        "zmm16"
    };
    (9) => {
        "zmm18"
    };
    (10) => {
        "zmm20"
    };
    (11) => {
        "zmm22"
    };
    (12) => {
        "zmm24"
    };
    (13) => {
        "zmm26"
    };
}
macro_rules! second {
    (0) => {
        "zmm1"
    };
    (1) => {
        "zmm3"
    };
    (2) => {
        "zmm5"
    };
    (3) => {
        "zmm7"
    };
    (4) => {
        "zmm9"
    };
    (5) => {
        "zmm11"
    };
    (6) => {
        "zmm13"
    };
    (7) => {
        "zmm15"
    };
    (8) => {
        "zmm17"
    };
    (9) => {
        "zmm19"
    };
    (10) => {
        "zmm21"
    };
    (11) => {
        "zmm23"
    };
    (12) => {
        "zmm25"
    };
    (13) => {
        "zmm27"
    };
}

/// The register that holds a row's element of `A`.
macro_rules! factor {
    (0) => {
        "zmm30"
    };
    (1) => {
        "zmm31"
    };
    (2) => {
        "zmm30"
    };
    (3) => {
        "zmm31"
    };
    (4) => {
        "zmm30"
    };
    (5) => {
        "zmm31"
    };
    (6) => {
        "zmm30"
    };
    (7) => {
        "zmm31"
    };
    (8) => {
        "zmm30"
    };
    (9) => {
        "zmm31"
    };
    (10) => {
        "zmm30"
    };
    (11) => {
        "zmm31"
    };
    (12) => {
        "zmm30"
    };
    (13) => {
        "zmm31"
    };
}

/// Where a row's element lies: side by side, or rows apart, three rows to a pointer.
macro_rules! element {
    (packed, $row:tt) => {
        concat!("[{a0} + 4*", $row, "]")
    };
    (direct, 0) => {
        "[{a0}]"
    };
    (direct, 1) => {
        "[{a0} + {lda}]"
    };
    (direct, 2) => {
        "[{a0} + 2*{lda}]"
    };
    (direct, 3) => {
        "[{a3}]"
    };
    (direct, 4) => {
        "[{a3} + {lda}]"
    };
    (direct, 5) => {
        "[{a3} + 2*{lda}]"
    };
    (direct, 6) => {
        "[{a6}]"
    };
    (direct, 7) => {
        "[{a6} + {lda}]"
    };
    (direct, 8) => {
        "[{a6} + 2*{lda}]"
    };
    (direct, 9) => {
        "[{a9}]"
    };
    (direct, 10) => {
        "[{a9} + {lda}]"
    };
    (direct, 11) => {
        "[{a9} + 2*{lda}]"
    };
    (direct, 12) => {
        "[{a12}]"
    };
    (direct, 13) => {
        "[{a12} + {lda}]"
    };
}

/// The step to the next `k` in `A`, for that many rows.
macro_rules! advance {
    (packed, $count:literal) => {
        "add {a0}, {lda}"
    };
    (direct, 4) => {
        "add {a0}, 4\nadd {a3}, 4"
    };
    (direct, 5) => {
        advance!(direct, 4)
    };
    (direct, 6) => {
        advance!(direct, 4)
    };
    (direct, 7) => {
        "add {a0}, 4\nadd {a3}, 4\nadd {a6}, 4"
    };
    (direct, 8) => {
        advance!(direct, 7)
    };
    (direct, 9) => {
        advance!(direct, 7)
    };
    (direct, 10) => {
        "add {a0}, 4\nadd {a3}, 4\nadd {a6}, 4\nadd {a9}, 4"
    };
    (direct, 11) => {
        advance!(direct, 10)
    };
    (direct, 12) => {
        advance!(direct, 10)
    };
    (direct, 13) => {
        "add {a0}, 4\nadd {a3}, 4\nadd {a6}, 4\nadd {a9}, 4\nadd {a12}, 4"
    };
    (direct, 14) => {
        advance!(direct, 13)
    };
}

/// The load of the last vector of `B`, of which all lanes are readable or those of the mask.
macro_rules! last_load {
    (whole, $register:literal, $from:literal) => {
        concat!("vmovups ", $register, ", ", $from)
    };
    (masked, $register:literal, $from:literal) => {
        concat!("vmovups ", $register, " {{k1}}{{z}}, ", $from)
    };
}

macro_rules! one_vector {
    ($tile:ident, $reads:tt, $mask:tt, $count:tt, [$($row:tt)*]) => {
        body!($tile, $reads,
            ["kmovd k1, {t:e}", "kshiftrd k2, k1, 31",],
            [$(concat!("vpxord ", first!($row), ", ", first!($row), ", ", first!($row)),)*],
            [$("prefetchw [{t}]", concat!("add {t}, {ldc} #", $row),)*],
            [
                last_load!($mask, "zmm28", "[{b}]"),
                $(
                    concat!("vbroadcastss ", factor!($row), ", dword ptr ", element!($reads, $row)),
                    concat!("vfmadd231ps ", first!($row), ", zmm28, ", factor!($row)),
                )*
                advance!($reads, $count),
            ],
            [$(concat!("vaddps ", first!($row), " {{k1}}, ", first!($row), ", [{t}]"), "add {t}, {ldc}",)*],
            [$(concat!("vmovups [{c}] {{k1}}, ", first!($row)), "add {c}, {ldc}",)*]
        )
    };
}

macro_rules! two_vectors {
    ($tile:ident, $reads:tt, $mask:tt, $count:tt, [$($row:tt)*]) => {
        body!($tile, $reads,
            ["kmovd k1, {t:e}", "kshiftrd k2, k1, 31",],
            [$(
                concat!("vpxord ", first!($row), ", ", first!($row), ", ", first!($row)),
                concat!("vpxord ", second!($row), ", ", second!($row), ", ", second!($row)),
            )*],
            [$("prefetchw [{t}]", "prefetchw [{t} + 64]", concat!("add {t}, {ldc} #", $row),)*],
            [
                "vmovups zmm28, [{b}]",
                last_load!($mask, "zmm29", "[{b} + 64]"),
                $(
                    concat!("vbroadcastss ", factor!($row), ", dword ptr ", element!($reads, $row)),
                    concat!("vfmadd231ps ", first!($row), ", zmm28, ", factor!($row)),
                    concat!("vfmadd231ps ", second!($row), ", zmm29, ", factor!($row)),
                )*
                advance!($reads, $count),
            ],
            [$(
                concat!("vaddps ", first!($row), ", ", first!($row), ", [{t}]"),
                concat!("vaddps ", second!($row), " {{k1}}, ", second!($row), ", [{t} + 64]"),
                "add {t}, {ldc}",
            )*],
            [$(
                concat!("vmovups [{c}], ", first!($row)),
                concat!("vmovups [{c} + 64] {{k1}}, ", second!($row)),
                "add {c}, {ldc}",
            )*]
        )
    };
}

/// The sequence that all tiles have. `t` holds the mask at first, and in its highest bit whether the tile adds; then it
/// walks over the rows of the result.
macro_rules! body {
    ($tile:ident, $reads:tt, [$($begin:tt)*], [$($zero:tt)*], [$($ask:tt)*], [$($step:tt)*], [$($add:tt)*], [$($store:tt)*]) => {{
        let lda = $tile.a_stride * 4;
        let third = |n: usize| $tile.a.wrapping_byte_add(n * lda);
        asm!(
            // Tiles of few rows need no more than the first of these.
            "# {a0} {a3} {a6} {a9} {a12} {lda}",
            $($begin)*
            $($zero)*
            "mov {t}, {c}",
            $($ask)*
            ".p2align 5",
            "2:",
            $($step)*
            "prefetcht1 [{b} + {ask}]",
            "add {b}, {ldb}",
            "dec {k}",
            "jnz 2b",
            "kortestw k2, k2",
            "jz 3f",
            "mov {t}, {c}",
            $($add)*
            "3:",
            $($store)*
            // Generated code has moves of SSE, which wait for the upper halves otherwise.
            "vzeroupper",
            k = inout(reg) $tile.k => _,
            a0 = inout(reg) $tile.a => _,
            a3 = inout(reg) third(3) => _,
            a6 = inout(reg) third(6) => _,
            a9 = inout(reg) third(9) => _,
            a12 = inout(reg) third(12) => _,
            lda = in(reg) lda,
            b = inout(reg) $tile.b => _,
            ldb = in(reg) $tile.b_step * 4,
            c = inout(reg) $tile.acc => _,
            ldc = in(reg) $tile.acc_row_stride * 4,
            ask = in(reg) $tile.ask,
            t = inout(reg) ((1usize << $tile.last_columns) - 1) | (usize::from($tile.add) << 31) => _,
            out("k1") _, out("k2") _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _, out("zmm6") _,
            out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _, out("zmm12") _, out("zmm13") _,
            out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
            out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _, out("zmm24") _, out("zmm25") _,
            out("zmm26") _, out("zmm27") _, out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
            options(nostack),
        )
    }};
}

/// Instantiates the tiles of every number of rows. Fewer sums would wait for one another: tiles of few rows split the sum
/// over `k`, and are not here.
macro_rules! tiles {
    ($($count:tt => $rows:tt;)*) => {
        /// The tile of a shape, where there is one here.
        pub(super) fn tile_function(rows: usize, vectors: usize, reads: Reads) -> Option<TileFunction> {
            Some(match (rows, vectors, reads) {
                $(
                    ($count, 1, Reads::Packed) => |tile| unsafe { one_vector!(tile, packed, whole, $count, $rows) },
                    ($count, 1, Reads::DirectB) => |tile| unsafe { one_vector!(tile, packed, masked, $count, $rows) },
                    ($count, 1, Reads::DirectA) => |tile| unsafe { one_vector!(tile, direct, whole, $count, $rows) },
                    ($count, 1, Reads::Direct) => |tile| unsafe { one_vector!(tile, direct, masked, $count, $rows) },
                    ($count, 2, Reads::Packed) => |tile| unsafe { two_vectors!(tile, packed, whole, $count, $rows) },
                    ($count, 2, Reads::DirectB) => |tile| unsafe { two_vectors!(tile, packed, masked, $count, $rows) },
                    ($count, 2, Reads::DirectA) => |tile| unsafe { two_vectors!(tile, direct, whole, $count, $rows) },
                    ($count, 2, Reads::Direct) => |tile| unsafe { two_vectors!(tile, direct, masked, $count, $rows) },
                )*
                _ => return None,
            })
        }
    };
}

tiles! {
    4 => [0 1 2 3];
    5 => [0 1 2 3 4];
    6 => [0 1 2 3 4 5];
    7 => [0 1 2 3 4 5 6];
    8 => [0 1 2 3 4 5 6 7];
    9 => [0 1 2 3 4 5 6 7 8];
    10 => [0 1 2 3 4 5 6 7 8 9];
    11 => [0 1 2 3 4 5 6 7 8 9 10];
    12 => [0 1 2 3 4 5 6 7 8 9 10 11];
    13 => [0 1 2 3 4 5 6 7 8 9 10 11 12];
    14 => [0 1 2 3 4 5 6 7 8 9 10 11 12 13];
}
