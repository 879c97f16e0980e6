//! The `.npy` format: a magic number, a Python dictionary of three keys, and the elements.

use super::{Array, Stored};
use crate::error::Error;
use bytes::Bytes;
use systole_compiler::tensor::Tensor;
use systole_compiler::types::{DType, strides};

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy's own headers are about a hundred bytes; what is longer than this is not one.
const HEADER_LIMIT: usize = 1 << 16;
/// NumPy itself stops at 64.
const RANK_LIMIT: usize = 64;

/// The array in the bytes of a whole file.
pub(super) fn decode(file: &Bytes) -> Result<Array, Error> {
    let header_end = header_range(file)?;
    let text = std::str::from_utf8(&file[header_end.clone()])
        .map_err(|_| malformed("the header is not text"))?;
    let header = parse_header(text)?;
    let (element, big_endian) = element_of(&header.descr)?;
    let width = match element {
        Stored::Known(dtype) => dtype.bytes(),
        Stored::Raw(bytes) => bytes,
    };
    let data = file.slice(header_end.end..);
    let count = header.shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    let wanted = count.and_then(|count| count.checked_mul(width));
    if wanted != Some(data.len()) {
        return Err(malformed(format!(
            "the header says {}{:?}, which is not the {} bytes of data in the file",
            header.descr,
            header.shape,
            data.len()
        )));
    }
    let data = if big_endian { swapped(&data, width) } else { data };
    let data = if header.fortran_order && header.shape.len() > 1 {
        row_major(&data, &header.shape, width)
    } else {
        data
    };
    Ok(Array { element, shape: header.shape, data })
}

/// The bytes of a file that holds the tensor. Types that NumPy lacks are written as raw bytes.
pub(super) fn encode(tensor: &Tensor) -> Vec<u8> {
    let sizes: Vec<String> = tensor.shape().iter().map(|size| format!("{size},")).collect();
    let shape = match sizes.as_slice() {
        [] | [_] => sizes.concat(),
        _ => sizes.join(" ").trim_end_matches(',').to_owned(),
    };
    let descr = descr_of(tensor.dtype());
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let before = MAGIC.len() + 4;
    let padding = 64 - (before + header.len() + 1) % 64;
    header.extend(std::iter::repeat_n(' ', padding % 64));
    header.push('\n');
    let mut file = Vec::with_capacity(before + header.len() + tensor.bytes().len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&[1, 0]);
    let length = u16::try_from(header.len()).expect("a shape's text is far below 64 KiB");
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(tensor.bytes());
    file
}

/// Whether NumPy has that element type.
pub(super) fn has_type_for(dtype: DType) -> bool {
    !descr_of(dtype).contains('V')
}

fn descr_of(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "|b1",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::BF16 => "|V2",
        DType::I4 | DType::U4 | DType::F8E4M3 | DType::F8E5M2 | DType::F4E2M1 => "|V1",
    }
}

/// The element type of a descr, and whether its bytes are in the other order.
fn element_of(descr: &str) -> Result<(Stored, bool), Error> {
    let (order, kind) = match descr.as_bytes().first() {
        Some(b'<' | b'>' | b'|' | b'=') => descr.split_at(1),
        _ => ("|", descr),
    };
    let dtype = match kind {
        "b1" | "?" => DType::Bool,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "V1" => return Ok((Stored::Raw(1), false)),
        "V2" => return Ok((Stored::Raw(2), false)),
        _ => {
            return Err(Error::unsupported(format!(
                "arrays of NumPy type '{descr}' cannot be read"
            )));
        }
    };
    Ok((Stored::Known(dtype), order == ">"))
}

fn header_range(file: &[u8]) -> Result<std::ops::Range<usize>, Error> {
    if !file.starts_with(MAGIC) {
        return Err(malformed("not an .npy file: it does not start with \\x93NUMPY"));
    }
    let (start, length) = match file.get(6..12) {
        Some(&[1, _, low, high, _, _]) => (10, usize::from(u16::from_le_bytes([low, high]))),
        Some(&[2 | 3, _, a, b, c, d]) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        Some(&[version, ..]) => {
            return Err(Error::unsupported(format!("version {version} of the .npy format")));
        }
        _ => return Err(malformed("the file ends within its header")),
    };
    if length > HEADER_LIMIT {
        return Err(malformed(format!("a header of {length} bytes; the limit is {HEADER_LIMIT}")));
    }
    if start + length > file.len() {
        return Err(malformed("the file ends within its header"));
    }
    Ok(start..start + length)
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order.
fn parse_header(text: &str) -> Result<Header, Error> {
    let mut rest = Scanner { rest: text };
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    rest.expect('{')?;
    while !rest.accept('}') {
        let key = rest.quoted()?;
        rest.expect(':')?;
        match key {
            "descr" => descr = Some(rest.quoted()?.to_owned()),
            "fortran_order" => fortran_order = Some(rest.boolean()?),
            "shape" => shape = Some(rest.shape()?),
            _ => return Err(malformed(format!("unknown key '{key}' in the header"))),
        }
        if !rest.accept(',') {
            rest.expect('}')?;
            break;
        }
    }
    match (descr, fortran_order, shape) {
        (Some(descr), Some(fortran_order), Some(shape)) => {
            Ok(Header { descr, fortran_order, shape })
        }
        _ => Err(malformed("the header lacks one of 'descr', 'fortran_order' and 'shape'")),
    }
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn accept(&mut self, wanted: char) -> bool {
        self.rest = self.rest.trim_start();
        let Some(rest) = self.rest.strip_prefix(wanted) else { return false };
        self.rest = rest;
        true
    }

    fn expect(&mut self, wanted: char) -> Result<(), Error> {
        if self.accept(wanted) {
            return Ok(());
        }
        if self.rest.starts_with('[') {
            return Err(Error::unsupported("arrays of NumPy records cannot be read"));
        }
        Err(malformed(format!("`{wanted}` is missing in the header")))
    }

    fn quoted(&mut self) -> Result<&'a str, Error> {
        let quote = if self.accept('"') {
            '"'
        } else {
            self.expect('\'')?;
            '\''
        };
        let end = self.rest.find(quote).ok_or_else(|| malformed("an open quote in the header"))?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, Error> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(malformed("'fortran_order' is neither True nor False"))
    }

    fn shape(&mut self) -> Result<Vec<usize>, Error> {
        let mut sizes = Vec::new();
        self.expect('(')?;
        while !self.accept(')') {
            self.rest = self.rest.trim_start();
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let size = self.rest[..end].parse().map_err(|_| {
                malformed("a size in the header is not a number of at most 64 bits")
            })?;
            self.rest = &self.rest[end..];
            sizes.push(size);
            if sizes.len() > RANK_LIMIT {
                return Err(malformed(format!("more than {RANK_LIMIT} dimensions")));
            }
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(sizes)
    }
}

fn swapped(data: &[u8], width: usize) -> Bytes {
    let mut data = data.to_vec();
    data.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    data.into()
}

/// Elements in column-major order, brought into row-major order. The sizes' product is known to be the elements' number.
fn row_major(data: &[u8], shape: &[usize], width: usize) -> Bytes {
    let reversed: Vec<usize> = shape.iter().rev().copied().collect();
    let mut from_strides = strides(&reversed);
    from_strides.reverse();
    let mut index = vec![0; shape.len()];
    let mut result = Vec::with_capacity(data.len());
    for _ in 0..data.len() / width {
        let from: usize = index.iter().zip(&from_strides).map(|(at, stride)| at * stride).sum();
        result.extend_from_slice(&data[from * width..(from + 1) * width]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    result.into()
}

fn malformed(message: impl Into<String>) -> Error {
    Error::file(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Bytes {
        let mut file = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes()].concat();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(data);
        file.into()
    }

    #[test]
    fn what_is_written_reads_back() {
        for shape in [&[][..], &[3], &[2, 3], &[0, 4]] {
            for dtype in DType::ALL {
                let ty = systole_compiler::types::TensorType::new(dtype, shape);
                let tensor = super::super::random(&ty, 7, None);
                let array = decode(&encode(&tensor).into()).expect("its own file");
                assert_eq!(array.into_tensor(Some(dtype)).expect("its own type"), tensor);
            }
        }
    }

    #[test]
    fn the_elements_start_on_a_multiple_of_64() {
        let tensor = Tensor::from_slice(&[1], &[1.0f32]);
        assert_eq!((encode(&tensor).len() - 4) % 64, 0);
    }

    #[test]
    fn column_major_and_big_endian_files_are_brought_into_order() {
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }";
        let array = decode(&file(header, &[0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6])).expect("valid");
        let tensor = array.into_tensor(None).expect("a known type");
        assert_eq!(tensor, Tensor::from_slice(&[2, 3], &[1i16, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn sizes_that_are_not_the_files_are_refused() {
        for shape in ["(2,)", "(4, 4611686018427387904)", "(99999999999999999999,)", "(-1,)"] {
            let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}");
            assert!(decode(&file(&header, &[0; 4])).is_err(), "{shape}");
        }
    }

    #[test]
    fn any_prefix_of_a_file_is_refused() {
        let whole = encode(&Tensor::from_slice(&[2], &[1.0f32, 2.0]));
        for end in 0..whole.len() {
            assert!(decode(&Bytes::copy_from_slice(&whole[..end])).is_err(), "{end} bytes");
        }
    }
}
