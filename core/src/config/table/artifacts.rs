//! Keys of artifact storages and registries, in the current form and in the older flat one.

use super::super::keys::Key;
use super::super::keys::Kind::{Bool, Choice, Int, Path, Size, Text, Texts, Word};
use crate::units::{GIB, KIB, MIB};

const STORAGE: &str = "artifact storages";
const REGISTRY: &str = "artifact registries";
const HUB: &str = "\"https://huggingface.co\"";

const fn word(path: &'static str) -> Key {
    Key::later(path, Word, STORAGE).required()
}

const fn text(path: &'static str) -> Key {
    Key::later(path, Text, REGISTRY)
}

const fn bytes(path: &'static str, min: u64, default: &'static str) -> Key {
    Key::later(path, Size(min, GIB), STORAGE).default(default)
}

const fn count(path: &'static str) -> Key {
    Key::later(path, Int(0, i64::MAX), STORAGE)
}

pub(super) const KEYS: &[Key] = &[
    Key::later(
        "artifact-storages.*.type",
        Choice(&["object_storage", "vfs_storage"]),
        STORAGE,
    )
    .required(),
    word("artifact-storages.*.object-storage.endpoint"),
    word("artifact-storages.*.object-storage.access-key").secret(),
    word("artifact-storages.*.object-storage.secret-key").secret(),
    word("artifact-storages.*.object-storage.region"),
    Key::later("artifact-storages.*.object-storage.buckets", Texts, STORAGE).default("[]"),
    bytes(
        "artifact-storages.*.object-storage.upload-chunk-size",
        5 * MIB,
        "5242880",
    ),
    bytes(
        "artifact-storages.*.object-storage.download-chunk-size",
        1,
        "8192",
    ),
    bytes(
        "artifact-storages.*.object-storage.reservoir-download-chunk-size",
        1,
        "8192",
    ),
    count("artifact-storages.*.object-storage.presigned-upload.min-size"),
    count("artifact-storages.*.object-storage.presigned-upload.max-size"),
    count("artifact-storages.*.object-storage.presigned-upload.expiration").default("300"),
    count("artifact-storages.*.object-storage.presigned-download.expiration").default("300"),
    Key::later("artifact-storages.*.vfs-storage.base-path", Path, STORAGE).required(),
    Key::later("artifact-storages.*.vfs-storage.subpath", Text, STORAGE),
    Key::later("artifact-storages.*.vfs-storage.temporary", Bool, STORAGE).default("false"),
    bytes(
        "artifact-storages.*.vfs-storage.upload-chunk-size",
        KIB,
        "65536",
    ),
    bytes(
        "artifact-storages.*.vfs-storage.download-chunk-size",
        KIB,
        "65536",
    ),
    count("artifact-storages.*.vfs-storage.max-file-size"),
    Key::later(
        "artifact-registries.*.type",
        Choice(&["huggingface", "reservoir"]),
        REGISTRY,
    )
    .required(),
    text("artifact-registries.*.huggingface.endpoint").default(HUB),
    text("artifact-registries.*.huggingface.token").secret(),
    bytes(
        "artifact-registries.*.huggingface.download-chunk-size",
        1,
        "8192",
    ),
    text("artifact-registries.*.reservoir.endpoint").default(HUB),
    text("artifact-registries.*.reservoir.object-storage-access-key").secret(),
    text("artifact-registries.*.reservoir.object-storage-secret-key").secret(),
    text("artifact-registries.*.reservoir.object-storage-region"),
    text("artifact-registries.*.reservoir.manager-endpoint"),
    text("artifact-registries.*.reservoir.manager-access-key").secret(),
    text("artifact-registries.*.reservoir.manager-secret-key").secret(),
    text("artifact-registries.*.reservoir.manager-api-version"),
    text("artifact-registries.*.reservoir.storage-name"),
    word("storages[].name"),
    word("storages[].endpoint"),
    word("storages[].access-key").secret(),
    word("storages[].secret-key").secret(),
    word("storages[].region"),
    Key::later("storages[].buckets", Texts, STORAGE).default("[]"),
    bytes("storages[].upload-chunk-size", 5 * MIB, "5242880"),
    bytes("storages[].download-chunk-size", 1, "8192"),
    bytes("storages[].reservoir-download-chunk-size", 1, "8192"),
    count("storages[].presigned-upload.min-size"),
    count("storages[].presigned-upload.max-size"),
    count("storages[].presigned-upload.expiration").default("300"),
    count("storages[].presigned-download.expiration").default("300"),
    Key::later("registries[].name", Word, REGISTRY).required(),
    Key::later(
        "registries[].config.type",
        Choice(&["huggingface", "reservoir"]),
        REGISTRY,
    )
    .required(),
    text("registries[].config.endpoint").default(HUB),
    text("registries[].config.token").secret(),
    bytes("registries[].config.download-chunk-size", 1, "8192"),
    text("registries[].config.object-storage-access-key").secret(),
    text("registries[].config.object-storage-secret-key").secret(),
    text("registries[].config.object-storage-region"),
    text("registries[].config.manager-endpoint"),
    text("registries[].config.manager-access-key").secret(),
    text("registries[].config.manager-secret-key").secret(),
    text("registries[].config.manager-api-version"),
    text("registries[].config.storage-name"),
];
