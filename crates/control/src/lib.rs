//! The control plane: operations, provisioning, REST.
