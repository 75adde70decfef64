// Runs IBM's CSI driver's own client of Scale against the simulator.
//
// SIM_PORT, SIM_USER, SIM_SECRET, SIM_DIR as for the other clients.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/IBM/ibm-spectrum-scale-csi/driver/csiplugin/connectors"
	"github.com/IBM/ibm-spectrum-scale-csi/driver/csiplugin/settings"
)

var passed, failed int

func check(what string, good bool, told ...interface{}) {
	if good {
		passed++
		return
	}
	failed++
	fmt.Println("FAILED:", what, fmt.Sprint(told...))
}

func main() {
	ctx := context.Background()
	port, _ := strconv.Atoi(os.Getenv("SIM_PORT"))
	dir, _ := filepath.EvalSymlinks(os.Getenv("SIM_DIR"))
	const fs = "fs1"
	cluster := settings.Clusters{
		ID:           "1",
		RestAPI:      []settings.RestAPI{{GuiHost: "127.0.0.1", GuiPort: port}},
		MgmtUsername: os.Getenv("SIM_USER"),
		MgmtPassword: os.Getenv("SIM_SECRET"),
	}
	made, err := connectors.NewSpectrumRestV2(ctx, cluster)
	check("client", err == nil, err)
	c := made.(*connectors.SpectrumRestV2)
	// Its other way to credentials is a file of the driver's container.
	c.RequestCalledBy = "operator"

	id, err := c.GetClusterId(ctx)
	check("cluster id", err == nil && id == "1", id, err)
	summary, err := c.GetClusterSummary(ctx)
	check("cluster summary", err == nil && summary.ClusterName != "", summary, err)
	version, err := c.GetScaleVersion(ctx)
	check("version", err == nil && strings.HasPrefix(version, "5."), version, err)
	zone, err := c.GetTimeZoneOffset(ctx)
	check("time zone", err == nil && zone != "", zone, err)
	can, err := c.IsSnapshotSupported(ctx)
	check("snapshots supported", err == nil && can, can, err)
	mount, err := c.GetFilesystemMountDetails(ctx, fs)
	check("mount details", err == nil && mount.Status == "mounted" && mount.MountPoint == dir && len(mount.NodesMounted) > 0, mount, err)
	on, err := c.IsFilesystemMountedOnGUINode(ctx, fs)
	check("mounted", err == nil && on, on, err)
	all, err := c.ListFilesystems(ctx)
	check("file systems", err == nil && all[fs] == dir, all, err)
	details, err := c.GetFilesystemDetails(ctx, fs)
	check("details", err == nil && strings.Contains(details.Quota.QuotasEnforced, "fileset"), details, err)
	uid, err := c.GetFsUid(ctx, fs)
	check("uuid", err == nil && uid != "", uid, err)
	name, err := c.GetFilesystemName(ctx, uid)
	check("name of uuid", err == nil && name == fs, name, err)
	_, err = c.GetFilesystemDetails(ctx, "nowhere")
	check("unknown file system", err != nil)
	gateway, err := c.GetGatewayNode(ctx)
	check("gateway", err == nil && gateway == "node2", gateway, err)
	well, err := c.IsNodeComponentHealthy(ctx, "node1", "GPFS")
	check("healthy", err == nil && well, well, err)
	well, err = c.IsNodeComponentHealthy(ctx, "node1", "NETWORK")
	check("not healthy", err == nil && !well, well, err)
	tier, err := c.GetTierInfoFromName(ctx, "data", fs)
	check("tier", err == nil && tier.StorageTierName == "data" && tier.TotalDataInKB > 0, tier, err)
	first, err := c.GetFirstDataTier(ctx, fs)
	check("first data tier", err == nil && first == "data", first, err)
	check("unknown tier", c.DoesTierExist(ctx, "nowhere", fs) != nil)

	opts := map[string]interface{}{"volDirBasePath": dir, "uid": "1000", "gid": "1000"}
	err = c.CreateFileset(ctx, fs, "", "pvc-1", opts, "", "", nil)
	check("create fileset", err == nil, err)
	err = c.CreateFileset(ctx, fs, "", "pvc-1", opts, "", "", nil)
	check("create fileset again", err == nil, err)
	there, err := c.CheckIfFilesetExist(ctx, fs, "pvc-1")
	check("fileset exists", err == nil && there, there, err)
	there, err = c.CheckIfFilesetExist(ctx, fs, "pvc-9")
	check("fileset is missing", err == nil && !there, there, err)
	linked, err := c.IsFilesetLinked(ctx, fs, "pvc-1")
	check("linked", err == nil && linked, linked, err)
	fileset, err := c.ListFileset(ctx, fs, "pvc-1")
	check("fileset", err == nil && fileset.Config.Path == dir+"/pvc-1" && fileset.Config.IsInodeSpaceOwner, fileset, err)
	missing, err := c.ListFileset(ctx, fs, "pvc-9")
	check("no fileset", err == nil && missing.FilesetName == "", missing, err)
	number, err := c.GetFileSetUid(ctx, fs, "pvc-1")
	check("fileset id", err == nil && number != "", number, err)
	named, err := c.GetFileSetNameFromId(ctx, fs, number)
	check("name of id", err == nil && named == "pvc-1", named, err)
	dependent := map[string]interface{}{"filesetType": "dependent", "parentFileset": "root"}
	check("dependent", c.CreateFileset(ctx, fs, "", "pvc-2", dependent, "", "", nil) == nil)
	linked, err = c.IsFilesetLinked(ctx, fs, "pvc-2")
	check("not linked", err == nil && !linked, linked, err)
	check("link", c.LinkFileset(ctx, fs, "pvc-2", dir+"/pvc-2") == nil)
	for _, more := range []string{"pvc-3", "pvc-4"} {
		check("more", c.CreateFileset(ctx, fs, "", more, opts, "", "", nil) == nil)
	}
	own, err := c.ListCSIIndependentFilesets(ctx, fs)
	check("independent filesets, in pages", err == nil && len(own) == 3, len(own), err)
	target, err := c.CheckFilesetWithAFMTarget(ctx, fs, "nowhere")
	check("pages to the end", err == nil && target == "", target, err)
	space, err := c.GetFilesetsInodeSpace(ctx, fs, fileset.Config.InodeSpace)
	check("by inode space", err == nil && len(space) == 1, len(space), err)
	check("refresh", c.FilesetRefreshTask(ctx) == nil)
	comment := map[string]interface{}{connectors.FilesetCommentKey: "ours"}
	check("comment", c.UpdateFileset(ctx, fs, "", "pvc-1", comment, false) == nil)
	fileset, err = c.ListFileset(ctx, fs, "pvc-1")
	check("comment is kept", err == nil && fileset.Config.Comment == "ours", fileset, err)

	check("quotas on", c.CheckIfFSQuotaEnabled(ctx, fs) == nil)
	check("set quota", c.SetFilesetQuota(ctx, fs, "pvc-1", "1073741824", "1073741824") == nil)
	limit, err := c.ListFilesetQuota(ctx, fs, "pvc-1")
	check("limit", err == nil && limit == "1048576K", limit, err)
	os.WriteFile(dir+"/pvc-1/file", make([]byte, 5000), 0o644)
	quota, err := c.GetFilesetQuotaDetails(ctx, fs, "pvc-1")
	check("quota", err == nil && quota.BlockUsage == 5 && quota.BlockLimit == 1048576 && quota.BlockQuota == 1048576, quota, err)
	none, err := c.ListFilesetQuota(ctx, fs, "pvc-2")
	check("no limit", err == nil && none == "", none, err)
	check("quota of nothing", c.SetFilesetQuota(ctx, fs, "pvc-9", "1024", "1024") != nil)

	check("make directory", c.MakeDirectory(ctx, fs, "pvc-1/a/b", "1000", "1000") == nil)
	check("make it again", c.MakeDirectoryV2(ctx, fs, "pvc-1/a/b", "1000", "1000", "755") == nil)
	there, err = c.CheckIfFileDirPresent(ctx, fs, "pvc-1/a/b")
	check("directory is there", err == nil && there, there, err)
	there, err = c.CheckIfFileDirPresent(ctx, fs, "pvc-1/zzz")
	check("directory is missing", err == nil && !there, there, err)

	check("snapshot", c.CreateSnapshot(ctx, fs, "pvc-1", "s1") == nil)
	check("snapshot again", c.CreateSnapshot(ctx, fs, "pvc-1", "s1") == nil)
	check("snapshot of a dependent one", c.CreateSnapshot(ctx, fs, "pvc-2", "s1") != nil)
	there, err = c.CheckIfSnapshotExist(ctx, fs, "pvc-1", "s1")
	check("snapshot exists", err == nil && there, there, err)
	there, err = c.CheckIfSnapshotExist(ctx, fs, "pvc-1", "s9")
	check("snapshot is missing", err == nil && !there, there, err)
	check("second snapshot", c.CreateSnapshot(ctx, fs, "pvc-1", "s2") == nil)
	check("third snapshot", c.CreateSnapshot(ctx, fs, "pvc-1", "s3") == nil)
	snapshots, err := c.ListFilesetSnapshots(ctx, fs, "pvc-1")
	check("snapshots, a page", err == nil && len(snapshots) == 2, len(snapshots), err)
	latest, err := c.GetLatestFilesetSnapshots(ctx, fs, "pvc-1")
	check("latest", err == nil && len(latest) == 1 && latest[0].SnapshotName == "s3", latest, err)
	at, err := c.GetSnapshotCreateTimestamp(ctx, fs, "pvc-1", "s1")
	check("time", err == nil && at != "", at, err)
	status, job, err := c.CopyFsetSnapshotPath(ctx, fs, "pvc-1", "s1", "a", dir+"/pvc-2/from-snapshot", "")
	check("copy of a snapshot", err == nil, err)
	check("copy is done", c.WaitForJobCompletion(ctx, status, job) == nil)
	_, err = os.Stat(dir + "/pvc-2/from-snapshot/b")
	check("copy is there", err == nil, err)
	status, job, err = c.CopyFilesetPath(ctx, fs, "pvc-1", "a", dir+"/pvc-2/from-fileset", "")
	check("copy of a fileset", err == nil && c.WaitForJobCompletion(ctx, status, job) == nil, err)
	status, job, err = c.CopyDirectoryPath(ctx, fs, "pvc-1/a", dir+"/pvc-2/from-directory", "")
	check("copy of a directory", err == nil && c.WaitForJobCompletion(ctx, status, job) == nil, err)
	status, job, err = c.CopyDirectoryPath(ctx, fs, "pvc-1/zzz", dir+"/pvc-2/none", "")
	check("copy of nothing", err == nil && c.WaitForJobCompletion(ctx, status, job) != nil, err)

	check("delete a linked fileset", c.DeleteFileset(ctx, fs, "pvc-1") != nil)
	check("unlink", c.UnlinkFileset(ctx, fs, "pvc-1", true) == nil)
	check("unlink again", c.UnlinkFileset(ctx, fs, "pvc-1", true) != nil)
	check("delete one with snapshots", c.DeleteFileset(ctx, fs, "pvc-1") != nil)
	for _, one := range []string{"s1", "s2", "s3"} {
		check("delete snapshot", c.DeleteSnapshot(ctx, fs, "pvc-1", one) == nil)
	}
	check("delete snapshot again", c.DeleteSnapshot(ctx, fs, "pvc-1", "s1") != nil)
	check("delete", c.DeleteFileset(ctx, fs, "pvc-1") == nil)
	check("delete again", c.DeleteFileset(ctx, fs, "pvc-1") == nil)
	check("delete directory", c.DeleteDirectory(ctx, fs, "pvc-2/from-directory", false) == nil)
	check("delete it again", c.DeleteDirectory(ctx, fs, "pvc-2/from-directory", false) == nil)

	cluster.MgmtPassword = "wrong"
	other, _ := connectors.NewSpectrumRestV2(ctx, cluster)
	other.(*connectors.SpectrumRestV2).RequestCalledBy = "operator"
	_, err = other.GetClusterId(ctx)
	check("wrong password", err != nil && strings.Contains(err.Error(), "Unauthorized"), err)

	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
