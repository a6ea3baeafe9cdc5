//! What was forgotten, as processes tell each other.

use insula_core::TenantId;
use uuid::Uuid;

use super::{Place, Whose};
use crate::key::KeyBytes;

/// Something is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// One thing, and its resource's id.
    Key(Place, u64),
    /// All of a resource: its id and name.
    Resource(Whose, u64, &'static str),
    /// All of a tenant.
    Tenant(Whose),
}

/// Bytes of a process's id.
pub(crate) const ID: usize = 16;

impl Notice {
    pub(crate) const fn tenant(&self) -> Whose {
        match self {
            Self::Key(place, _) => place.tenant,
            Self::Resource(tenant, ..) | Self::Tenant(tenant) => *tenant,
        }
    }

    /// Sender, kind, tenant, resource, key: fixed widths but for the last.
    pub(crate) fn encode(&self, from: &[u8; ID]) -> Vec<u8> {
        let (kind, resource, key) = match self {
            Self::Key(place, id) => (b'k', *id, place.key.as_slice()),
            Self::Resource(_, id, _) => (b'r', *id, [].as_slice()),
            Self::Tenant(_) => (b't', 0, [].as_slice()),
        };
        let mut bytes = Vec::with_capacity(2 * ID + 9 + key.len());
        bytes.extend_from_slice(from);
        bytes.push(kind);
        bytes.extend_from_slice(self.tenant().id.uuid().as_bytes());
        bytes.extend_from_slice(&resource.to_be_bytes());
        bytes.extend_from_slice(key);
        bytes
    }

    /// Who says so, and what; `None` when this is no notice, or of a tenant that `known` does not know. Names, epochs and tenants' numbers do
    /// not travel: the first level knows resources by their ids, and a number is somebody else in another installation.
    pub(crate) fn decode(bytes: &[u8], known: impl FnOnce(TenantId) -> Option<Whose>) -> Option<([u8; ID], Self)> {
        let (from, rest) = bytes.split_first_chunk::<ID>()?;
        let (kind, rest) = rest.split_first()?;
        let (tenant, rest) = rest.split_first_chunk::<ID>()?;
        let (resource, key) = rest.split_first_chunk::<8>()?;
        let (tenant, resource) = (TenantId::from(Uuid::from_bytes(*tenant)), u64::from_be_bytes(*resource));
        let tenant = known(tenant)?;
        let notice = match kind {
            b'k' => Self::Key(Place { tenant, epoch: 0, resource: "", key: KeyBytes::from_slice(key) }, resource),
            b'r' if key.is_empty() => Self::Resource(tenant, resource, ""),
            b't' if key.is_empty() => Self::Tenant(tenant),
            _ => return None,
        };
        Some((*from, notice))
    }
}

#[cfg(test)]
mod tests {
    use insula_core::TenantNo;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_told_is_what_is_heard(no in 1i64.., of in any::<u128>(), id in any::<u64>(), key in proptest::collection::vec(any::<u8>(), 0..80), junk in proptest::collection::vec(any::<u8>(), 0..60)) {
            let tenant = Whose { no: TenantNo::new(no).unwrap(), id: TenantId::from(Uuid::from_u128(of)) };
            let known = |id| (id == tenant.id).then_some(tenant);
            for notice in [
                Notice::Key(Place { tenant, epoch: 0, resource: "", key: KeyBytes::from_slice(&key) }, id),
                Notice::Resource(tenant, id, ""),
                Notice::Tenant(tenant),
            ] {
                let told = notice.encode(&[7; ID]);
                prop_assert_eq!(Notice::decode(&told, |_| None), None);
                prop_assert_eq!(Notice::decode(&told, known), Some(([7; ID], notice)));
            }
            // Never a panic.
            let _ = Notice::decode(&junk, |_| Some(tenant));
        }
    }
}
