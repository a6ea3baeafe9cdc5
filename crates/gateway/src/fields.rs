//! Fields of heads: as they are written, and those that come again and again on one connection.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The fields of the head before, in their order: who sent it says mostly the same again, and what is the same to the byte is not read again.
/// As much as one head has.
#[derive(Default)]
pub(crate) struct Known(Vec<Field>);

struct Field {
    /// As it was written.
    written: Box<[u8]>,
    name: HeaderName,
    value: HeaderValue,
}

impl Known {
    /// The field that came at this place; nothing when it is none.
    pub(crate) fn read(&mut self, place: usize, field: &httparse::Header<'_>) -> Option<(HeaderName, HeaderValue)> {
        let known = self.0.get_mut(place).filter(|known| *known.written == *field.name.as_bytes());
        if let Some(known) = known {
            if known.value.as_bytes() != field.value {
                known.value = HeaderValue::from_bytes(field.value).ok()?;
            }
            return Some((known.name.clone(), known.value.clone()));
        }
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(field.value).ok()?;
        // What came behind another one comes elsewhere, if it comes.
        self.0.truncate(place);
        self.0.push(Field { written: field.name.as_bytes().into(), name: name.clone(), value: value.clone() });
        Some((name, value))
    }

    /// The head had so many.
    pub(crate) fn end(&mut self, many: usize) {
        self.0.truncate(many);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Lays them into `out`, as they stand in a head.
pub(crate) fn write(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.reserve(name.len() + value.len() + 4);
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}
