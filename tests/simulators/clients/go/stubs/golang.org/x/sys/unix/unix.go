package unix

import "syscall"

type Stat_t = syscall.Stat_t
type Statfs_t = syscall.Statfs_t

func Stat(p string, s *Stat_t) error            { return syscall.Stat(p, s) }
func Statfs(p string, s *Statfs_t) error        { return syscall.Statfs(p, s) }
func Minor(dev uint64) uint32                   { return uint32(dev & 0xff) }
func IoctlGetInt(fd int, req uint) (int, error) { return 0, syscall.ENOTSUP }
