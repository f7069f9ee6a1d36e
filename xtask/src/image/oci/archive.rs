//! One file per image, which every engine takes: an OCI image layout, with the `manifest.json` beside it
//! that `docker load` read before it knew the layout.
//!
//! ```text
//! oci-layout         the version of the layout
//! index.json         the manifest, under the image's name
//! manifest.json      configuration, names and layers, as docker lists them
//! blobs/sha256/...   manifest, configuration and layers by digest
//! ```

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::config::{self, Build, Settings};
use super::layer::Layer;
use crate::image::digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What an image is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    /// With the host that every engine's name of an image begins with.
    pub(crate) repository: &'a str,
    pub(crate) tag: &'a str,
}

/// An archive and the digest of the image's manifest, by which engines know it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: String,
}

impl Archive {
    /// An image of these layers, the lowest first.
    pub(crate) fn build(
        name: Name<'_>,
        settings: &Settings,
        build: Build<'_>,
        layers: &[&Layer],
    ) -> Result<Self> {
        let full = format!("{}:{}", name.repository, name.tag);
        let mut blobs: BTreeMap<String, &[u8]> = BTreeMap::new();
        for layer in layers {
            blobs.insert(digest::oci(&layer.compressed), &layer.compressed);
        }
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|layer| descriptor(LAYER, &layer.compressed))
            .collect();
        let config = serde_json::to_vec(&config::document(settings, build, layers))?;
        blobs.insert(digest::oci(&config), &config);
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": descriptors,
        }))?;
        let digest = digest::oci(&manifest);
        blobs.insert(digest.clone(), &manifest);

        let mut listed = descriptor(MANIFEST, &manifest);
        if let Some(fields) = listed.as_object_mut() {
            let platform = json!({"architecture": build.architecture, "os": "linux"});
            fields.insert("platform".into(), platform);
            let annotations = json!({
                "io.containerd.image.name": full,
                "org.opencontainers.image.ref.name": name.tag,
            });
            fields.insert("annotations".into(), annotations);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]});
        let files: Vec<String> = layers
            .iter()
            .map(|layer| blob_path(&digest::oci(&layer.compressed)))
            .collect();
        let docker = json!([{
            "Config": blob_path(&digest::oci(&config)),
            "RepoTags": [full],
            "Layers": files,
        }]);

        let mut archive = Builder::new(Vec::new());
        let layout = serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?;
        put(&mut archive, "oci-layout", &layout, build.time)?;
        put(
            &mut archive,
            "index.json",
            &serde_json::to_vec(&index)?,
            build.time,
        )?;
        put(
            &mut archive,
            "manifest.json",
            &serde_json::to_vec(&docker)?,
            build.time,
        )?;
        for directory in ["blobs/", "blobs/sha256/"] {
            let mut header = header(build.time, 0);
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            archive.append_data(&mut header, directory, std::io::empty())?;
        }
        for (digest, bytes) in blobs {
            put(&mut archive, &blob_path(&digest), bytes, build.time)?;
        }
        Ok(Self {
            bytes: archive.into_inner()?,
            digest,
        })
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest::oci(bytes), "size": bytes.len()})
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn put(archive: &mut Builder<Vec<u8>>, path: &str, bytes: &[u8], time: u64) -> Result<()> {
    let mut header = header(time, bytes.len() as u64);
    Ok(archive.append_data(&mut header, path, bytes)?)
}

fn header(time: u64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::image::tree::{Entry, Tree};

    fn build() -> (Archive, Vec<Layer>) {
        let layers: Vec<Layer> = ["one", "two"]
            .into_iter()
            .map(|what| {
                let mut tree = Tree::default();
                tree.insert(what, Entry::file(what)).unwrap();
                Layer::pack(what, &tree, 5).unwrap()
            })
            .collect();
        let name = Name {
            repository: "localhost/image",
            tag: "1.0",
        };
        let build = Build {
            architecture: "amd64",
            time: 5,
        };
        let each: Vec<&Layer> = layers.iter().collect();
        let archive = Archive::build(name, &Settings::default(), build, &each).unwrap();
        (archive, layers)
    }

    fn files(archive: &Archive) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for file in tar::Archive::new(archive.bytes.as_slice())
            .entries()
            .unwrap()
        {
            let mut file = file.unwrap();
            if file.header().entry_type().is_dir() {
                continue;
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            let path = file.path().unwrap().to_str().unwrap().to_owned();
            assert!(files.insert(path, bytes).is_none(), "twice");
        }
        files
    }

    /// The blob a descriptor names, whose size and digest must be what the descriptor says.
    fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = &files[&format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap())];
        assert_eq!(digest::oci(bytes), digest);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    #[test]
    fn every_digest_and_size_is_that_of_a_blob() {
        let (archive, layers) = build();
        let files = files(&archive);
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(
            parse(&files["oci-layout"]),
            json!({"imageLayoutVersion": "1.0.0"})
        );
        let index = parse(&files["index.json"]);
        let listed = &index["manifests"][0];
        assert_eq!(listed["digest"], archive.digest);
        assert_eq!(
            listed["platform"],
            json!({"architecture": "amd64", "os": "linux"})
        );
        assert_eq!(
            listed["annotations"]["io.containerd.image.name"],
            "localhost/image:1.0"
        );
        assert_eq!(
            listed["annotations"]["org.opencontainers.image.ref.name"],
            "1.0"
        );
        let manifest = parse(blob(&files, listed));
        let config = parse(blob(&files, &manifest["config"]));
        let described = manifest["layers"].as_array().unwrap();
        assert_eq!(described.len(), layers.len());
        for (at, layer) in layers.iter().enumerate() {
            assert_eq!(blob(&files, &described[at]), layer.compressed);
            assert_eq!(config["rootfs"]["diff_ids"][at], layer.diff_id);
        }
        // Nothing lies around that the manifest does not name: three lists, manifest, configuration, layers.
        assert_eq!(files.len(), 3 + 2 + layers.len());
    }

    #[test]
    fn docker_finds_the_same_files() {
        let (archive, layers) = build();
        let files = files(&archive);
        let list: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(list[0]["RepoTags"], json!(["localhost/image:1.0"]));
        let config: Value =
            serde_json::from_slice(&files[list[0]["Config"].as_str().unwrap()]).unwrap();
        assert_eq!(config["os"], "linux");
        for (at, layer) in layers.iter().enumerate() {
            assert_eq!(
                files[list[0]["Layers"][at].as_str().unwrap()],
                layer.compressed
            );
        }
    }

    #[test]
    fn building_again_gives_the_same_bytes() {
        assert_eq!(build(), build());
    }
}
