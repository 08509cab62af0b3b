//! Files that may be started and files that may not, on a real file system.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use proptest::prelude::*;

/// A tree of our own, removed with it: `root` below it is the allowed one.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Tree {
        let base = std::env::temp_dir().canonicalize().unwrap();
        let dir = base.join(format!("dot_host_{}", uuid::Uuid::new_v4()));
        let tree = Tree(dir);
        for dir in ["", "root", "root/a", "root/b", "elsewhere"] {
            std::fs::create_dir(tree.0.join(dir)).unwrap();
            tree.mode(dir, 0o755);
        }
        for file in ["root/a/x", "root/b/y", "elsewhere/z"] {
            std::fs::write(tree.0.join(file), "#!/bin/sh\n").unwrap();
            tree.mode(file, 0o755);
        }
        tree
    }

    fn mode(&self, path: &str, mode: u32) {
        std::fs::set_permissions(self.0.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn me(&self) -> u32 {
        self.0.metadata().unwrap().uid()
    }

    fn roots(&self) -> Roots {
        Roots::parse(&self.0.join("root").to_string_lossy())
    }

    fn ask(&self, name: &str) -> Result<String, &'static str> {
        match find(&self.roots(), name, self.me()) {
            Ok(found) => Ok(found.real.strip_prefix(&*self.0.to_string_lossy()).unwrap().to_owned()),
            Err((_, refusal)) => Err(refusal.reason),
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_link_is_followed_and_must_stay_below_the_root() {
    let tree = Tree::new();
    symlink("../b/y", tree.0.join("root/a/inner")).unwrap();
    symlink(tree.0.join("elsewhere/z"), tree.0.join("root/a/outer")).unwrap();
    symlink(tree.0.join("elsewhere"), tree.0.join("root/dir")).unwrap();
    symlink("loop", tree.0.join("root/loop")).unwrap();
    assert_eq!(tree.ask("a/x"), Ok("/root/a/x".into()));
    assert_eq!(tree.ask("a/inner"), Ok("/root/b/y".into()));
    assert_eq!(tree.ask("a/outer"), Err("program_outside_roots"));
    assert_eq!(tree.ask("dir/z"), Err("program_outside_roots"));
    assert_eq!(tree.ask("a/none"), Err("program_missing"));
    assert_eq!(tree.ask("loop"), Err("program_missing"));
    assert_eq!(tree.ask("a"), Err("program_not_a_file"));
    tree.mode("root/a/x", 0o644);
    assert_eq!(tree.ask("a/x"), Err("program_not_executable"));
}

#[test]
fn a_link_that_leaves_the_root_and_comes_back_is_not_followed() {
    let tree = Tree::new();
    let link = |target: &Path, name: &str| symlink(target, tree.0.join(name)).unwrap();
    // Who can write elsewhere would choose which program of the root is started.
    link(&tree.0.join("root/b/y"), "elsewhere/back");
    link(&tree.0.join("elsewhere/back"), "root/a/away");
    link(Path::new("../../elsewhere/back"), "root/a/up");
    link(Path::new("../../root/b/y"), "root/a/over");
    for name in ["a/away", "a/up", "a/over"] {
        assert_eq!(tree.ask(name), Err("program_outside_roots"), "{name}");
    }
    // Within it they may go where they like, through directories that nobody else writes.
    std::fs::create_dir(tree.0.join("root/c")).unwrap();
    tree.mode("root/c", 0o755);
    link(&tree.0.join("root/b/y"), "root/c/hop");
    link(Path::new("../c/./hop"), "root/a/first");
    link(Path::new("../c"), "root/a/dir");
    for name in ["a/first", "a/dir/hop"] {
        assert_eq!(tree.ask(name), Ok("/root/b/y".into()), "{name}");
        tree.mode("root/c", 0o775);
        assert_eq!(tree.ask(name), Err("program_writable_by_others"), "{name}");
        tree.mode("root/c", 0o755);
    }
    assert_eq!(tree.ask("a/x/z"), Err("program_missing"), "a file is no directory");
    // A root that is itself reached by a link is the directory that it leads to.
    link(&tree.0.join("root"), "alias");
    link(&tree.0.join("alias/b/y"), "root/a/named");
    let roots = Roots::parse(&tree.0.join("alias").to_string_lossy());
    assert!(find(&roots, "a/named", tree.me()).is_ok_and(|found| found.real.ends_with("/root/b/y")));
    assert_eq!(tree.ask("a/named"), Err("program_outside_roots"));
}

#[test]
fn who_can_write_on_the_way_could_choose_the_program() {
    let tree = Tree::new();
    symlink("../b/y", tree.0.join("root/a/inner")).unwrap();
    for (path, mode) in
        [("root/b/y", 0o775), ("root/b/y", 0o757), ("root/b", 0o1777), ("root", 0o770), ("root/a", 0o775)]
    {
        tree.mode(path, mode);
        assert_eq!(tree.ask("a/inner"), Err("program_writable_by_others"), "{path} {mode:o}");
        tree.mode(path, 0o755);
        assert_eq!(tree.ask("a/inner"), Ok("/root/b/y".into()));
    }
}

#[test]
fn a_stranger_owns_nothing_that_is_started() {
    let tree = Tree::new();
    // Who owns the root is trusted with what is in it; anybody else is not, and that we are not the server does not help.
    assert!(find(&tree.roots(), "a/x", tree.me() + 1).is_ok());
    let meta = tree.0.join("root/a/x").metadata().unwrap();
    let stranger = trusted(Path::new("/x"), &meta, &[meta.uid() + 1, meta.uid() + 2]);
    assert_eq!(stranger.unwrap_err().reason, "program_owner");
}

#[test]
fn a_root_is_a_directory_that_nobody_else_writes() {
    let tree = Tree::new();
    let ask = |path: &str| root(&tree.0.join(path).to_string_lossy(), tree.me()).map_err(|refusal| refusal.reason);
    assert_eq!(ask("root"), Ok(()));
    assert_eq!(ask("none"), Err("program_missing"));
    assert_eq!(ask("root/a/x"), Err("program_missing"));
    tree.mode("root", 0o777);
    assert_eq!(ask("root"), Err("program_writable_by_others"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    /// Whatever the modes are: what is found is executable and written by its owner alone, all the way.
    #[test]
    fn what_is_found_is_safe(modes in prop::array::uniform3(0o700_u32..=0o777)) {
        let tree = Tree::new();
        for (path, mode) in ["root", "root/a", "root/a/x"].into_iter().zip(modes) {
            tree.mode(path, mode);
        }
        let safe = modes.iter().all(|mode| mode & 0o022 == 0);
        prop_assert_eq!(tree.ask("a/x").is_ok(), safe);
    }
}
