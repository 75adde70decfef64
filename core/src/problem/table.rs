//! The table of error classes: one row is everything the wire and the caller need to know.
//!
//! Columns: name; who caused it; what to do next; status; suffix of `type`; `title`;
//! `error_code`.
//!
//! Laws
//! - `error_code` is `<domain>_<operation>_<detail>` with words of the closed lists in contract
//!   5.4: the Manager takes anything else for no code at all.
//! - What users can bring about on their own folders stays in domain `vfolder` or `quota-scope`:
//!   the Manager shows every other domain as an internal error.
//!
//! Source: contract 5.1, 5.2, 5.4, 9.1.

use super::{Cause, Next};

macro_rules! table {
    ($($name:ident, $cause:ident, $next:ident, $status:literal, $suffix:literal,
       $title:literal, $code:literal;)+) => {
        /// A class of errors with its own `type` on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $(#[doc = $title] $name,)+
        }

        impl Kind {
            /// Every class, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            const fn row(self) -> &'static Row {
                match self {
                    $(Self::$name => &Row {
                        name: stringify!($name),
                        cause: Cause::$cause,
                        next: Next::$next,
                        status: $status,
                        suffix: $suffix,
                        title: $title,
                        code: $code,
                    },)+
                }
            }
        }
    };
}

struct Row {
    name: &'static str,
    cause: Cause,
    next: Next,
    status: u16,
    suffix: &'static str,
    title: &'static str,
    code: &'static str,
}

impl Kind {
    /// HTTP status.
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// What `type` holds after [`TYPE_BASE`](super::TYPE_BASE).
    pub const fn type_suffix(self) -> &'static str {
        self.row().suffix
    }

    /// `title` on the wire.
    pub const fn title(self) -> &'static str {
        self.row().title
    }

    /// `error_code` on the wire; also the metric labels. Every class of today has one.
    pub const fn error_code(self) -> Option<&'static str> {
        Some(self.row().code)
    }

    /// Who must act.
    pub const fn cause(self) -> Cause {
        self.row().cause
    }

    /// What the caller should do.
    pub const fn next(self) -> Next {
        self.row().next
    }

    /// The name of the class here, for logs.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

table! {
    // Raised by the storage proxy itself: contract 5.1.
    ExternalStorageService, Backend, RetryLater, 500, "storage/external/failed",
        "External Operation Failed", "storage-proxy_request_unreachable";
    NotImplementedAPI, Client, FixRequest, 400, "storage/api/not-implemented",
        "API Not Implemented", "storage-proxy_request_not-implemented";
    ProcessExecution, Backend, RetryLater, 500, "storage/execution/failed",
        "Storage Operation Execution Failed", "storage-proxy_execute_internal-error";
    StorageProxy, Us, GiveUp, 500, "storage/generic",
        "Storage Proxy Error", "storage-proxy_generic_internal-error";
    InvalidAPIParameters, Client, FixRequest, 400, "storage/invalid-api-params",
        "Invalid API parameters", "storage-proxy_request_invalid-parameters";
    InvalidConfigurationSource, Operator, GiveUp, 500, "storage/config/invalid-source",
        "Invalid Configuration Source", "storage-proxy_setup_invalid-parameters";
    InvalidDataLength, Client, FixRequest, 400, "storage/data/invalid-length",
        "Invalid Data Length", "storage-proxy_request_invalid-parameters";
    InvalidPath, Client, FixRequest, 400, "storage/path/invalid",
        "Invalid Path", "storage-proxy_access_invalid-parameters";
    InvalidSocketPath, Operator, GiveUp, 400, "storage/socket-path/invalid",
        "Invalid Socket Path", "storage-proxy_access_invalid-parameters";
    InvalidStorageTarget, Client, FixRequest, 400, "storage/invalid-storage-target",
        "Invalid Storage Target", "storage-proxy_request_invalid-parameters";
    ServiceNotInitialized, Us, RetryLater, 500, "storage/service/not-initialized",
        "Service Not Initialized", "storage-proxy_setup_not-ready";
    StorageNotFound, Client, FixRequest, 404, "storage/object-not-found",
        "Storage Config Not Found", "storage_read_not-found";
    StorageStepRequiredStepNotProvided, Operator, GiveUp, 400, "storage/step-mapping-not-provided",
        "Storage Step Mapping Not Provided", "storage_setup_invalid-parameters";
    StorageTransfer, Backend, RetryLater, 500, "storage/transfer/failed",
        "Storage Transfer Failed", "storage-proxy_create_internal-error";
    StorageTypeInvalid, Operator, GiveUp, 400, "storage/object-type-invalid",
        "Storage Config Invalid Type", "storage_access_invalid-parameters";
    UploadOffsetMismatch, Client, FixRequest, 409, "storage/upload-offset-mismatch",
        "Upload Offset Mismatch", "storage-proxy_update_conflict";
    InvalidSubpath, Client, FixRequest, 400, "storage/subpath/invalid",
        "Invalid Subpath", "vfolder_access_invalid-parameters";
    VFolderNotFound, Client, FixRequest, 404, "storage/vfolder/not-found",
        "VFolder Not Found", "vfolder_read_not-found";
    InvalidQuotaConfig, Client, FixRequest, 400, "storage/quota/config/invalid",
        "Invalid Quota Config", "quota-scope_update_invalid-parameters";
    InvalidQuotaFormat, Backend, GiveUp, 500, "storage/quota/format/invalid",
        "Invalid Quota Format", "quota-scope_read_invalid-data-format";
    InvalidQuotaScope, Client, FixRequest, 400, "storage/quota/scope/invalid",
        "Invalid Quota Scope", "quota-scope_access_invalid-parameters";
    QuotaDirectoryNotEmpty, Client, FixRequest, 409, "storage/quota-directory-not-empty",
        "Quota Directory Not Empty", "quota-scope_purge_conflict";
    QuotaScopeAlreadyExists, Client, FixRequest, 409, "storage/quota/scope/already-exists",
        "Quota Scope Already Exists", "quota-scope_create_already-exists";
    QuotaScopeCreationFailed, Backend, RetryLater, 500, "storage/quota/scope/creation-failed",
        "Quota Scope Creation Failed", "quota-scope_create_internal-error";
    QuotaScopeNotFound, Client, FixRequest, 404, "storage/quota/scope/not-found",
        "Quota Scope Not Found", "quota-scope_read_not-found";
    QuotaTreeNotFound, Backend, GiveUp, 404, "storage/quota/tree/not-found",
        "Quota Tree Not Found", "quota-scope_read_not-found";
    InvalidVolume, Client, FixRequest, 400, "storage/volume/invalid",
        "Invalid Volume", "storage_access_invalid-parameters";
    MetadataTooLarge, Client, FixRequest, 400, "storage/volume/metadata-too-large",
        "Metadata Too Large", "storage_create_invalid-parameters";
    VolumeNotInitialized, Operator, RetryLater, 500, "storage/volume/not-initialized",
        "Volume Not Initialized", "storage_setup_not-ready";
    CephNotInstalled, Operator, GiveUp, 503, "storage/ceph/not-installed",
        "Ceph Not Installed", "storage_setup_unavailable";
    DDNCommandFailed, Backend, RetryLater, 500, "storage/ddn/command-failed",
        "DDN Command Failed", "storage_execute_internal-error";
    MetricNotFound, Backend, RetryLater, 404, "storage/metric-not-found",
        "Metric Not Found", "storage-proxy_read_not-found";
    NetAppClient, Backend, RetryLater, 500, "storage/netapp/api-error",
        "NetApp API Error", "storage_request_unreachable";
    NetAppQTreeNotFound, Backend, GiveUp, 404, "storage/netapp/qtree-not-found",
        "NetApp QTree Not Found", "quota-scope_read_not-found";
    PureStorageCommandFailed, Backend, RetryLater, 500, "storage/purestorage/command-failed",
        "PureStorage Command Failed", "storage_execute_internal-error";
    PurityUnauthorized, Operator, GiveUp, 500, "purity-unauthorized-client",
        "Unauthorized Purity Client", "storage_access_unauthorized";
    GpfsBadRequest, Backend, GiveUp, 400, "gpfs-bad-request",
        "GPFS Bad Request", "storage_request_bad-request";
    GpfsUnauthorized, Operator, GiveUp, 401, "gpfs-authentication-failure",
        "GPFS Authentication Failure", "storage_auth_unauthorized";
    GpfsForbidden, Operator, GiveUp, 403, "gpfs-forbidden",
        "GPFS Forbidden", "storage_auth_forbidden";
    GpfsNotFound, Backend, GiveUp, 404, "gpfs-not-found",
        "GPFS Not Found", "storage_read_not-found";
    GpfsConflict, Backend, GiveUp, 409, "gpfs-conflict",
        "GPFS Conflict", "storage_create_conflict";
    GpfsInternal, Backend, GiveUp, 500, "gpfs-internal-error",
        "GPFS Internal Error", "storage_request_internal-error";
    GpfsNoMetric, Backend, RetryLater, 500, "gpfs-no-metric",
        "GPFS No Metric", "storage_read_not-found";
    GpfsJobFailed, Backend, GiveUp, 500, "gpfs-job-failed",
        "GPFS Job Failed", "storage_execute_internal-error";
    GpfsJobCancelled, Backend, RetryLater, 500, "gpfs-job-cancelled",
        "GPFS Job Cancelled", "storage_execute_canceled";
    WekaUnauthorized, Operator, GiveUp, 500, "storage/weka/unauthorized",
        "Weka Unauthorized", "storage_auth_unauthorized";
    WekaNotFound, Backend, GiveUp, 500, "storage/weka/not-found",
        "Weka Not Found", "storage_read_not-found";
    WekaNoMetric, Backend, RetryLater, 500, "storage/weka/no-metric",
        "Weka No Metric", "storage_read_not-found";
    WekaInvalidBody, Backend, GiveUp, 500, "storage/weka/invalid-body",
        "Weka Invalid Body", "storage_request_invalid-data-format";
    WekaAPI, Backend, GiveUp, 500, "storage/weka/api-error",
        "Weka API Error", "storage_request_bad-request";
    WekaInternal, Backend, RetryLater, 500, "storage/weka/internal-error",
        "Weka Internal Error", "storage_request_internal-error";
    HammerspaceUnauthorized, Operator, GiveUp, 401, "hammerspace-authentication-failure",
        "Hammerspace Authentication Failure", "storage_auth_unauthorized";
    HammerspaceShareNotFound, Backend, GiveUp, 404, "hammerspace-share-not-found",
        "Hammerspace Share Not Found", "storage_read_not-found";
    QuotaCommandFailed, Backend, RetryLater, 500, "storage/quota/command-failed",
        "Quota Command Failed", "quota-scope_execute_internal-error";
    SubprocessStdoutNotAvailable, Backend, RetryLater, 500, "storage/subprocess/stdout-unavailable",
        "Subprocess Stdout Not Available", "storage-proxy_execute_internal-error";
    ArtifactImport, Backend, RetryLater, 500, "storage/artifact/import/failed",
        "Artifact Import Failed", "artifact_create_internal-error";
    ArtifactRevisionEmpty, Client, FixRequest, 400, "storage/artifact/revision/empty",
        "Artifact Revision Empty", "artifact_read_invalid-parameters";
    ArtifactStorageEmpty, Operator, GiveUp, 404, "storage/artifact/config/invalid",
        "Artifact Storage Empty", "artifact_read_not-found";
    ArtifactVerificationFailed, Client, FixRequest, 400, "storage/artifact/verification/failed",
        "Artifact Verification Failed", "artifact_access_mismatch";
    ArtifactVerifyStorageTypeInvalid, Operator, GiveUp, 400,
        "storage/artifact/verify/storage-type/invalid",
        "Artifact Verify Storage Type Invalid", "artifact_access_invalid-parameters";
    FileStreamDownload, Backend, RetryLater, 500, "storage/file-stream-download-failed",
        "Failed to download file stream", "object-storage_read_internal-error";
    FileStreamUpload, Backend, RetryLater, 500, "storage/file-stream-upload-failed",
        "Failed to upload file stream", "object-storage_create_internal-error";
    HuggingFaceAPI, Backend, RetryLater, 500, "registries/huggingface/api-error",
        "HuggingFace API Error", "artifact-registry_request_unreachable";
    HuggingFaceModelNotFound, Client, FixRequest, 404, "registries/huggingface/model-not-found",
        "HuggingFace Model Not Found", "artifact_read_not-found";
    ObjectInfoFetch, Backend, RetryLater, 500, "storage/object-info-fetch-failed",
        "Failed to fetch object info", "object-storage_read_internal-error";
    ObjectStorageBucketNotFound, Client, FixRequest, 404, "storage/bucket/object-not-found",
        "Storage Bucket Not Found", "object-storage_read_not-found";
    ObjectStorageConfigInvalid, Operator, GiveUp, 400, "storage/object/config/invalid",
        "Object Storage Config Invalid", "object-storage_setup_invalid-parameters";
    ObjectStorageObjectDeletion, Backend, GiveUp, 400, "storage/object/deletion/failed",
        "Object Deletion Failed", "object-storage_purge_internal-error";
    PresignedDownloadURLGeneration, Backend, RetryLater, 500,
        "storage/presigned-download-url-generation-failed",
        "Failed to generate presigned download URL", "object-storage_read_internal-error";
    PresignedUploadURLGeneration, Backend, RetryLater, 500,
        "storage/presigned-upload-url-generation-failed",
        "Failed to generate presigned upload URL", "object-storage_create_internal-error";
    RegistryNotFound, Client, FixRequest, 404, "registries/registry-not-found",
        "Registry Not Found", "artifact-registry_read_not-found";
    ReservoirStorageConfigInvalid, Operator, GiveUp, 400, "storage/reservoir/config/invalid",
        "Reservoir Storage Config Invalid", "vfs-storage_setup_invalid-parameters";
    StorageBucketFileNotFound, Client, FixRequest, 404, "storage/bucket/file/object-not-found",
        "Storage Bucket File Not Found", "object-storage_read_not-found";
    UnsupportedFileType, Client, FixRequest, 400, "storage/unsupported-file-type",
        "Unsupported File Type", "vfs-storage_read_invalid-parameters";
    // Shared with other components: contract 5.2.
    ArtifactDefaultRevisionResolve, Client, FixRequest, 400, "artifact-revision-resolve-failed",
        "Cannot Resolve Artifact Default Revision", "artifact_request_bad-request";
    BackendAISchemaValidationFailed, Client, FixRequest, 400, "schema-validation-failed",
        "Schema validation failed.", "backendai_parsing_invalid-parameters";
    BgtaskNotRegistered, Us, GiveUp, 500, "bgtask-not-registered",
        "Background Task Not Registered", "bgtask_execute_not-implemented";
    GenericNotImplemented, Us, GiveUp, 500, "not-implemented",
        "Not Implemented", "backendai_generic_not-implemented";
    CommonInvalidAPIParameters, Client, FixRequest, 400, "generic-bad-request",
        "Invalid or Missing API Parameters.", "api_parsing_invalid-parameters";
    JWTDecode, Client, FixRequest, 400, "jwt-decode-error",
        "Failed to decode JWT token.", "auth_auth_bad-request";
    JWTExpired, Client, FixRequest, 401, "jwt-expired",
        "JWT token has expired.", "auth_auth_data-expired";
    JWTInvalidSignature, Client, FixRequest, 401, "jwt-invalid-signature",
        "JWT signature verification failed.", "auth_auth_unauthorized";
    JWTPayloadValidation, Client, FixRequest, 400, "jwt-payload-validation-error",
        "JWT payload validation failed.", "auth_auth_invalid-parameters";
    MalformedRequestBody, Client, FixRequest, 400, "generic-bad-request",
        "Malformed request body.", "api_parsing_bad-request";
    MiddlewareParamParsingFailed, Us, GiveUp, 500, "internal-server-error",
        "Middleware parameter parsing failed.", "api_parsing_bad-request";
    ParameterNotParsed, Us, GiveUp, 500, "internal-server-error",
        "Parameter Not Parsed Error", "api_parsing_not-found";
    Unreachable, Backend, RetryLater, 500, "unreachable",
        "Unreachable", "backendai_generic_unreachable";
    TusLeaseHeld, Client, RetryLater, 409, "storage/tus-lease-held",
        "TUS session lease is held by another storage-proxy", "storage-proxy_update_conflict";
    TusLeaseLost, Client, RetryLater, 409, "storage/tus-lease-lost",
        "TUS session lease lost mid-write", "storage-proxy_update_conflict";
    TusSessionNotFound, Client, FixRequest, 404, "storage/tus-session-not-found",
        "TUS upload session not found", "storage-proxy_read_not-found";
    // Ours: cases that the original answers with a bare 500 or not at all.
    VFolderExists, Client, FixRequest, 409, "storage/vfolder/already-exists",
        "VFolder Already Exists", "vfolder_create_already-exists";
    UploadTooLarge, Client, FixRequest, 413, "storage/upload-too-large",
        "Upload Too Large", "vfolder_create_invalid-parameters";
    UploadPartConflict, Client, FixRequest, 409, "storage/upload-part-conflict",
        "Upload Part Conflict", "storage-proxy_update_conflict";
    UploadRangesMax, Client, RetryLater, 409, "storage/upload-ranges-max",
        "Too Many Ranges In Upload", "storage-proxy_update_conflict";
    UploadRangeOutside, Client, FixRequest, 416, "storage/upload-range-outside",
        "Range Outside Of Upload", "storage-proxy_request_invalid-parameters";
    UploadChecksumMismatch, Client, RetryLater, 460, "storage/upload-checksum-mismatch",
        "Upload Checksum Mismatch", "storage-proxy_update_mismatch";
    NoSpace, Operator, RetryLater, 507, "storage/no-space",
        "No Space Left", "vfolder_update_unavailable";
    QuotaExceeded, Client, RetryLater, 507, "storage/quota-exceeded",
        "Quota Exceeded", "vfolder_update_forbidden";
    VolumeUnavailable, Backend, RetryLater, 503, "storage/volume/unavailable",
        "Volume Unavailable", "storage_access_unavailable";
    SnapshotNotFound, Client, FixRequest, 404, "storage/snapshot/not-found",
        "Snapshot Not Found", "vfolder_read_not-found";
    SnapshotExists, Client, FixRequest, 409, "storage/snapshot/already-exists",
        "Snapshot Already Exists", "vfolder_create_already-exists";
    TargetConflict, Client, FixRequest, 409, "storage/target-conflict",
        "Target Conflict", "vfolder_update_conflict";
    TaskNotFound, Client, GiveUp, 404, "storage/task-not-found",
        "Background Task Not Found", "bgtask_read_not-found";
    Overloaded, Us, RetryLater, 503, "storage/overloaded",
        "Too Many Requests In Progress", "storage-proxy_request_unavailable";
}
