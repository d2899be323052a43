package folder

import "golang.org/x/sys/windows"

// drives returns the drives that have letters, but for those that the network and
// the first two letters, of diskettes, make slow to look at.
func drives() []Drive {
	mask, err := windows.GetLogicalDrives()
	if err != nil {
		return nil
	}
	var list []Drive
	for i := 2; i < 26; i++ {
		if mask&(1<<i) == 0 {
			continue
		}
		dir := string(rune('A'+i)) + `:\`
		name, err := windows.UTF16PtrFromString(dir)
		if err != nil {
			continue
		}
		switch windows.GetDriveType(name) {
		case windows.DRIVE_FIXED:
			list = append(list, Drive{Dir: dir})
		case windows.DRIVE_REMOVABLE:
			list = append(list, Drive{dir, true})
		}
	}
	return list
}
