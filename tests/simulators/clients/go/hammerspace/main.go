// Runs Hammerspace's CSI driver's own client against the simulator.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/hammer-space/csi-plugin/pkg/client"
	"github.com/hammer-space/csi-plugin/pkg/common"
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
	url, dir := os.Getenv("SIM_URL"), os.Getenv("SIM_DIR")
	c, err := client.NewHammerspaceClient(url, os.Getenv("SIM_USER"), os.Getenv("SIM_SECRET"), true)
	check("login", err == nil, err)
	_, err = client.NewHammerspaceClient(url, os.Getenv("SIM_USER"), "wrong", true)
	check("wrong password", err != nil)

	free, err := c.GetClusterAvailableCapacity(ctx)
	check("free capacity", err == nil && free > 0, free, err)
	portals, err := c.GetDataPortals(ctx, "node1")
	check("data portals", err == nil && len(portals) == 1 && portals[0].Node.MgmtIpAddress.Address != "", portals, err)
	objectives, err := c.ListObjectiveNames(ctx)
	check("objectives", err == nil && len(objectives) > 0, objectives, err)

	options := []common.ShareExportOptions{{Subnet: "*", AccessPermissions: "RW", RootSquash: false}}
	err = c.CreateShare(ctx, "one", "/one", 1<<30, []string{"keep-online"}, options, 0, "a comment")
	check("create", err == nil, err)
	share, err := c.GetShare(ctx, "one")
	check("share", err == nil && share.ExportPath == "/one" && share.Size == 1<<30 && share.ShareState == "PUBLISHED", share, err)
	check("comment", share.Comment == "a comment" && share.ExtendedInfo["csi_delete_delay"] == "0", share)
	check("options", len(share.ExportOptions) == 1 && share.ExportOptions[0].AccessPermissions == "RW", share)
	check("objective", len(share.Objectives.Applied) == 1 && share.Objectives.Applied[0].Name == "keep-online", share)
	check("space", share.Space.Total == 1<<30 && share.Space.Used == 0 && share.Inodes.Total > 0, share)
	none, err := c.GetShare(ctx, "nowhere")
	check("no share", err == nil && none == nil, none, err)
	check("create again", c.CreateShare(ctx, "one", "/one", 0, nil, nil, 0, "") == nil)
	check("second", c.CreateShare(ctx, "two", "/two", 0, nil, nil, -1, "") == nil)
	shares, err := c.ListShares(ctx)
	check("list", err == nil && len(shares) == 2, len(shares), err)
	two, err := c.GetShare(ctx, "two")
	check("no limit", err == nil && two.Size == 0 && two.Space.Total > 1<<30, two, err)
	check("resize", c.UpdateShareSize(ctx, "two", 1<<31) == nil)
	two, err = c.GetShare(ctx, "two")
	check("resized", err == nil && two.Size == 1<<31, two, err)
	raw, err := c.GetShareRawFields(ctx, "two")
	check("raw fields", err == nil && raw["name"] == "two", raw, err)

	os.WriteFile(dir+"/one/file", make([]byte, 5000), 0o644)
	share, _ = c.GetShare(ctx, "one")
	check("used", share.Space.Used == 5000, share.Space)
	there, err := c.DoesFileExist(ctx, "/one/file")
	check("file", err == nil && there, err)
	there, err = c.DoesFileExist(ctx, "/one/nowhere")
	check("no file", err == nil && !there, err)

	empty, err := c.GetShareSnapshots(ctx, "one")
	check("no snapshots", err == nil && len(empty) == 0, empty, err)
	name, err := c.SnapshotShare(ctx, "one")
	check("snapshot", err == nil && name != "", name, err)
	second, err := c.SnapshotShare(ctx, "one")
	check("another", err == nil && second != name, second, err)
	names, err := c.GetShareSnapshots(ctx, "one")
	check("snapshots", err == nil && len(names) == 2 && names[0] == name, names, err)
	_, err = os.Stat(dir + "/one/.snapshot/" + name + "/file")
	check("snapshot is seen", err == nil, err)
	listed, err := c.ListSnapshots(ctx, "", "one")
	check("snapshots by files", err == nil && len(listed) == 2, listed, err)
	check("delete snapshot", c.DeleteShareSnapshot(ctx, "one", name) == nil)
	check("delete it again", c.DeleteShareSnapshot(ctx, "one", name) == nil)
	names, err = c.GetShareSnapshots(ctx, "one")
	check("one is left", err == nil && len(names) == 1, names, err)
	_, err = c.SnapshotShare(ctx, "nowhere")
	check("snapshot of nothing", err != nil)

	check("delete", c.DeleteShare(ctx, "one", 0) == nil)
	check("delete again", c.DeleteShare(ctx, "one", 0) == nil)
	gone, err := c.GetShare(ctx, "one")
	check("gone", err == nil && gone == nil, gone, err)
	_, err = os.Stat(dir + "/one")
	check("with its files", err != nil)

	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
