//! What a process knows of the catalog: source, snapshot, watch.
