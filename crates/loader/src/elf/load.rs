//! Copying a kernel into guest memory and relocating it.

use std::ops::Range;

use vm_memory::{Bytes as _, GuestAddress, GuestMemory, Le64, Permissions, VolatileMemory as _};

use super::relocation::{Rela, Relocations, Value, Visit};
use super::{Kernel, Tls};
use crate::Error;

/// Bits of an address that are 0 where a kernel starts: those inside of a 4 KiB page.
const PAGE_MASK: u64 = 4095;
/// Memory is cleared in pieces of this many bytes.
const CLEAR_CHUNK: usize = 64 << 10;
/// Relocations are read back from there in pieces of this many bytes.
const TABLE_CHUNK: usize = 1024 * size_of::<Rela>();

/// A kernel in guest memory. All addresses are guest-physical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedKernel {
    /// Guest address of the entry point.
    pub entry: u64,
    /// First address of the kernel.
    pub start: u64,
    /// Address after the last one.
    pub end: u64,
    /// The thread-local storage template.
    pub tls: Option<Tls>,
}

impl Kernel {
    /// Loads the kernel at `start_address` of **fresh memory**, and relocates it.
    ///
    /// `start_address` is a multiple of 4096 for a relocatable kernel, and [`Self::fixed_start`]
    /// for others. Only the bytes that the file has are written: memory that the kernel expects to
    /// be zero (`.bss`) must be so, as freshly mapped memory is. Call [`Self::clear`] before, to
    /// load into used memory.
    ///
    /// # Errors
    ///
    /// [`Error::WrongStart`]; [`Error::OutsideMemory`] if the memory has not the whole range, in
    /// which case none of it is touched; [`Error::Memory`]. If the kernel is in a file:
    /// [`Error::Read`], [`Error::Shrunk`], and any error of its relocations, should the file have
    /// changed since.
    pub fn load<M: GuestMemory + ?Sized>(
        &self,
        memory: &M,
        start_address: u64,
    ) -> Result<LoadedKernel, Error> {
        let (start, end) = self.place(memory, start_address)?;
        // What to add to addresses as linked; wraps to less for no kernel, as fixed ones get 0.
        let bias = start.wrapping_sub(self.link_start());
        for segment in &self.segments {
            let address = GuestAddress(segment.address.wrapping_add(bias));
            self.source.copy_to(segment.file_offset, segment.file_size, memory, address)?;
        }
        self.relocate(memory, start, bias)?;
        let tls = self.tls().map(|tls| Tls { start: tls.start.wrapping_add(bias), ..tls });
        Ok(LoadedKernel { entry: self.entry().wrapping_add(bias), start, end, tls })
    }

    /// Applies the relocations. Kernels have tens of thousands of them, so that looking up the
    /// memory region for each would take most of the time of loading: where the kernel lies in one
    /// piece of host memory, that is done once.
    fn relocate<M: GuestMemory + ?Sized>(
        &self,
        memory: &M,
        start: u64,
        bias: u64,
    ) -> Result<(), Error> {
        let size = usize::try_from(self.mem_size()).unwrap_or(usize::MAX);
        let mut pieces = memory
            .get_slices(GuestAddress(start), size, Permissions::ReadWrite)
            .map_err(Error::Memory)?;
        let whole = pieces.next().and_then(Result::ok).filter(|piece| piece.len() == size);
        let link_start = self.link_start();
        let mut relocations = Relocations::new(&self.tables, &self.source, self.mem_size());
        let table = relocations.table();
        let pieces = |visit: &mut Visit<'_>| table_pieces(memory, table, bias, visit);
        relocations.each(pieces, |relocation| {
            let address = GuestAddress(relocation.place.wrapping_add(bias));
            let offset =
                usize::try_from(relocation.place.wrapping_sub(link_start)).unwrap_or(usize::MAX);
            let field = whole.as_ref().and_then(|whole| whole.get_ref::<Le64>(offset).ok());
            let value = match relocation.value {
                Value::Relative(value) => value.wrapping_add(bias),
                Value::Fixed(value) => value,
                Value::RelativeInPlace => {
                    let addend = match &field {
                        Some(field) => field.load(),
                        None => memory.read_obj(address).map_err(Error::Memory)?,
                    };
                    addend.to_native().wrapping_add(bias)
                }
            };
            match field {
                Some(field) => field.store(Le64::from(value)),
                None => memory.write_obj(Le64::from(value), address).map_err(Error::Memory)?,
            }
            Ok(())
        })
    }

    /// Writes zeros where the kernel would be loaded at `start_address`.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn clear<M: GuestMemory + ?Sized>(
        &self,
        memory: &M,
        start_address: u64,
    ) -> Result<(), Error> {
        let (mut at, end) = self.place(memory, start_address)?;
        let zeros = vec![0; CLEAR_CHUNK];
        while at < end {
            let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let piece = zeros.get(..left.min(CLEAR_CHUNK)).unwrap_or_default();
            memory.write_slice(piece, GuestAddress(at)).map_err(Error::Memory)?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    /// The range of guest memory for the kernel at `start`, if it can run there.
    fn place<M: GuestMemory + ?Sized>(&self, memory: &M, start: u64) -> Result<(u64, u64), Error> {
        let wanted = self.fixed_start().unwrap_or(start & !PAGE_MASK);
        if start != wanted {
            return Err(Error::WrongStart { start, wanted });
        }
        let outside = || Error::OutsideMemory { start, end: start.saturating_add(self.mem_size()) };
        let end = start.checked_add(self.mem_size()).ok_or_else(outside)?;
        let size = usize::try_from(self.mem_size()).map_err(|_| outside())?;
        if memory.check_range(GuestAddress(start), size, Permissions::ReadWrite) {
            Ok((start, end))
        } else {
            Err(outside())
        }
    }
}

/// Calls `visit` for the pieces of the relocation table, which is in memory by now: to read it
/// there costs less than to read it from the file again.
fn table_pieces<M: GuestMemory + ?Sized>(
    memory: &M,
    table: Range<u64>,
    bias: u64,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    if table.is_empty() {
        return Ok(());
    }
    let mut buffer = vec![0; TABLE_CHUNK];
    let mut at = table.start;
    while at < table.end {
        let left = usize::try_from(table.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let piece = buffer.get_mut(..left.min(TABLE_CHUNK)).unwrap_or_default();
        memory.read_slice(piece, GuestAddress(at.wrapping_add(bias))).map_err(Error::Memory)?;
        visit(piece)?;
        at = at.saturating_add(piece.len() as u64);
    }
    Ok(())
}
