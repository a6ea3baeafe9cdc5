//! AcmeDocs: a document application for many customers, on insula alone.
