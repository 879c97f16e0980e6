//! The tile of bytes for AVX-512 VNNI, in assembly as those of [`super::zmm`]: one step takes four elements along `k` of
//! 32 columns, and for each row four elements of `A` at once.

use super::codes::Tile;
use core::arch::asm;

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
/// Where a row's elements lie: three rows to a pointer.
macro_rules! element {
    (0) => {
        "[{a0}]"
    };
    (1) => {
        "[{a0} + {lda}]"
    };
    (2) => {
        "[{a0} + 2*{lda}]"
    };
    (3) => {
        "[{a3}]"
    };
    (4) => {
        "[{a3} + {lda}]"
    };
    (5) => {
        "[{a3} + 2*{lda}]"
    };
    (6) => {
        "[{a6}]"
    };
    (7) => {
        "[{a6} + {lda}]"
    };
    (8) => {
        "[{a6} + 2*{lda}]"
    };
    (9) => {
        "[{a9}]"
    };
    (10) => {
        "[{a9} + {lda}]"
    };
    (11) => {
        "[{a9} + 2*{lda}]"
    };
    (12) => {
        "[{a12}]"
    };
    (13) => {
        "[{a12} + {lda}]"
    };
}
/// The first factor of the instruction is unsigned.
macro_rules! multiply {
    (a_unsigned, $sum:ident, $b:literal, $row:tt) => {
        concat!("vpdpbusd ", $sum!($row), ", ", factor!($row), ", ", $b)
    };
    (b_unsigned, $sum:ident, $b:literal, $row:tt) => {
        concat!("vpdpbusd ", $sum!($row), ", ", $b, ", ", factor!($row))
    };
}

macro_rules! rows {
    ($tile:ident, $unsigned:tt, [$($row:tt)*]) => {{
        let third = |n: usize| $tile.a.wrapping_add(n * $tile.a_stride);
        asm!(
            $(
                concat!("vpxord ", first!($row), ", ", first!($row), ", ", first!($row)),
                concat!("vpxord ", second!($row), ", ", second!($row), ", ", second!($row)),
            )*
            ".p2align 5",
            "2:",
            "vmovdqu32 zmm28, [{b}]",
            "vmovdqu32 zmm29, [{b} + 64]",
            $(
                concat!("vpbroadcastd ", factor!($row), ", dword ptr ", element!($row)),
                multiply!($unsigned, first, "zmm28", $row),
                multiply!($unsigned, second, "zmm29", $row),
            )*
            "add {a0}, 4",
            "add {a3}, 4",
            "add {a6}, 4",
            "add {a9}, 4",
            "add {a12}, 4",
            "add {b}, 128",
            "dec {groups}",
            "jnz 2b",
            $(
                concat!("vmovdqu32 [{sums} + 128*", $row, "], ", first!($row)),
                concat!("vmovdqu32 [{sums} + 128*", $row, " + 64], ", second!($row)),
            )*
            "# {lda}",
            // Generated code has moves of SSE, which wait for the upper halves otherwise.
            "vzeroupper",
            groups = inout(reg) $tile.groups => _,
            a0 = inout(reg) $tile.a => _,
            a3 = inout(reg) third(3) => _,
            a6 = inout(reg) third(6) => _,
            a9 = inout(reg) third(9) => _,
            a12 = inout(reg) third(12) => _,
            lda = in(reg) $tile.a_stride,
            b = inout(reg) $tile.b => _,
            sums = in(reg) $tile.sums,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _, out("zmm6") _,
            out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _, out("zmm12") _, out("zmm13") _,
            out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
            out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _, out("zmm24") _, out("zmm25") _,
            out("zmm26") _, out("zmm27") _, out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
            options(nostack),
        )
    }};
}

macro_rules! tiles {
    ($($count:tt => $rows:tt;)*) => {
        /// The tile; a panel has 32 columns.
        ///
        /// # Safety
        /// The machine has AVX-512 VNNI, and what the tile addresses is readable and writable.
        pub(super) unsafe fn tile(tile: &Tile) {
            // SAFETY: the caller's promise; registers and flags that change are declared.
            unsafe {
                match (tile.rows, tile.a_is_unsigned) {
                    $(
                        ($count, true) => rows!(tile, a_unsigned, $rows),
                        ($count, false) => rows!(tile, b_unsigned, $rows),
                    )*
                    (rows, _) => unreachable!("no tile has {rows} rows"),
                }
            }
        }
    };
}

tiles! {
    1 => [0];
    2 => [0 1];
    3 => [0 1 2];
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
