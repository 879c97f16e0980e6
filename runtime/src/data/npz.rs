//! Bundles: a zip archive with one `.npy` for each name. Zip names end in `.npy`; ours do not.

use super::{Array, npy, write::replace_with};
use crate::error::{Error, listed};
use bytes::Bytes;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use systole_compiler::tensor::Tensor;

/// Deflate cannot make more than this many bytes from one, so a larger claim is a lie.
const DEFLATE_RATIO: u64 = 1032;

/// An open `.npz`. Arrays are read one by one, when they are asked for.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    names: Vec<String>,
    archive: zip::ZipArchive<BufReader<File>>,
}

impl Bundle {
    /// Opens the archive and reads its table of contents.
    pub fn open(path: &Path) -> Result<Bundle, Error> {
        let problem = |what: String| Error::file(format!("cannot read {}: {what}", path.display()));
        let file = File::open(path).map_err(|error| problem(error.to_string()))?;
        let archive = zip::ZipArchive::new(BufReader::new(file))
            .map_err(|error| problem(format!("not an .npz archive ({error})")))?;
        let mut names: Vec<String> = archive
            .file_names()
            .map(|name| name.strip_suffix(".npy").unwrap_or(name).to_owned())
            .collect();
        names.sort();
        Ok(Bundle { path: path.to_owned(), names, archive })
    }

    /// The names of the arrays, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The array of that name.
    pub fn read(&mut self, name: &str) -> Result<Array, Error> {
        let shown = self.path.display().to_string();
        if !self.names.iter().any(|known| known == name) {
            let names = listed(self.names.iter().map(String::as_str));
            return Err(Error::file(format!("{shown} has no array `{name}`; it has {names}")));
        }
        let in_entry =
            |what: String| Error::file(format!("cannot read `{name}` of {shown}: {what}"));
        let entry_name = format!("{name}.npy");
        let is_npy = self.archive.index_for_name(&entry_name).is_some();
        let entry_name = if is_npy { entry_name.as_str() } else { name };
        let mut entry =
            self.archive.by_name(entry_name).map_err(|error| in_entry(error.to_string()))?;
        let claimed = entry.size();
        if claimed > entry.compressed_size().saturating_mul(DEFLATE_RATIO).saturating_add(1024) {
            return Err(in_entry(format!("an impossible size of {claimed} bytes")));
        }
        let mut data = Vec::new();
        let room = usize::try_from(claimed).ok().and_then(|size| data.try_reserve_exact(size).ok());
        if room.is_none() {
            return Err(in_entry(format!("no memory for its {claimed} bytes")));
        }
        entry
            .by_ref()
            .take(claimed.saturating_add(1))
            .read_to_end(&mut data)
            .map_err(|error| in_entry(error.to_string()))?;
        npy::decode(&Bytes::from(data))
            .map_err(|error| error.in_file(&format!("{shown}:{name}"), None))
    }
}

/// Writes a bundle, uncompressed as `numpy.savez` does.
pub(super) fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), Error> {
    replace_with(path, |file| fill(file, tensors))
}

fn fill(file: &mut File, tensors: &[(String, Tensor)]) -> std::io::Result<()> {
    let mut buffered = std::io::BufWriter::new(file);
    archive(&mut buffered, tensors)?;
    buffered.flush()
}

fn archive(file: &mut (impl Write + Seek), tensors: &[(String, Tensor)]) -> std::io::Result<()> {
    let mut archive = zip::ZipWriter::new(file);
    for (name, tensor) in tensors {
        let data = npy::encode(tensor);
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .large_file(data.len() > u32::MAX as usize)
            // A fixed date, so that equal tensors make equal files.
            .last_modified_time(zip::DateTime::default());
        archive.start_file(format!("{name}.npy"), options).map_err(std::io::Error::other)?;
        archive.write_all(&data)?;
    }
    archive.finish().map_err(std::io::Error::other)?;
    Ok(())
}
