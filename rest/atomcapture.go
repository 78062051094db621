package rest

import (
	"strconv"
	"strings"

	"github.com/millrace/millrace/hub"
)

// The capture of a hub in its description, as the last of the elements:
//
//	<CaptureDescription>
//	  <Destination>
//	    <Name>EventHubArchive.AzureBlockBlob</Name>
//	    <Properties>
//	      <ArchiveNameFormat>, <BlobContainer>, <StorageAccountResourceId>
//	    </Properties>
//	  </Destination>
//	  <Enabled>, <Encoding>, <IntervalInSeconds>, <SizeLimitInBytes>, <SkipEmptyArchives>
//	</CaptureDescription>
//
// This form is Millrace's own. The .NET library's EventHubDescription had an
// ArchiveDescription and then a CaptureDescription (Azure/azure-rest-api-specs,
// issue 687), but neither its XML nor the order in it is public. So the names are
// those of the resource manager, capitalized, in the alphabetical order that a data
// contract has unless it says otherwise. A reader that knows no such element skips
// it. One that has it in an earlier place skips it as well, and loses nothing else,
// since nothing stands behind it.

// parseCapture reads a CaptureDescription. What is not in it stays as it is.
func parseCapture(e *element) (*captureDescription, error) {
	c := &captureDescription{}
	return c, e.group(
		field{"Destination", func(e *element) (err error) {
			c.Destination, err = parseDestination(e)
			return err
		}},
		field{"Enabled", optional(&c.Enabled, (*element).boolean)},
		field{"Encoding", optional(&c.Encoding, (*element).value)},
		field{"IntervalInSeconds", optional(&c.IntervalInSeconds, (*element).integer)},
		field{"SizeLimitInBytes", optional(&c.SizeLimitInBytes, (*element).integer)},
		field{"SkipEmptyArchives", optional(&c.SkipEmptyArchives, (*element).boolean)},
	)
}

func parseDestination(e *element) (*captureDestination, error) {
	d := &captureDestination{}
	return d, e.group(
		field{"Name", text(&d.Name)},
		field{"Properties", func(e *element) error {
			return e.group(
				field{"ArchiveNameFormat", text(&d.Properties.ArchiveNameFormat)},
				field{"BlobContainer", text(&d.Properties.BlobContainer)},
				field{"DataLakeAccountName", text(&d.Properties.DataLakeAccountName)}, // to be refused as what it is
				field{"StorageAccountResourceId", text(&d.Properties.StorageAccountResourceID)},
			)
		}},
	)
}

// group sets what the children of an element say that holds elements alone, in any
// order.
func (e *element) group(members ...field) error {
	if !blank(e.text) {
		return invalid("The element '%s' holds text, where elements belong.", e.name.Local)
	}
	return e.fields(nil, members...)
}

// optional sets a pointer to what is read of an element.
func optional[T any](to **T, read func(*element) (T, error)) func(*element) error {
	return func(e *element) error {
		v, err := read(e)
		*to = &v
		return err
	}
}

// boolean reads true or false, as XML Schema has them.
func (e *element) boolean() (bool, error) {
	s, err := e.value()
	if err != nil {
		return false, err
	}
	switch strings.TrimSpace(s) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, invalid("%s is true or false, not '%s'.", e.name.Local, excerpt(s))
}

// integer reads any number of 64 bits; its limits are the hub's to say.
func (e *element) integer() (int64, error) {
	s, err := e.value()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0, invalid("%s is a whole number of 64 bits, not '%s'.", e.name.Local, excerpt(s))
	}
	return n, nil
}

// capture writes a CaptureDescription, and nothing for a hub that never was
// captured: clients that don't know the element see no other document than before.
// Resource managers' id of the storage account is for whoever may change it; others
// see the name of the destination, as they do elsewhere.
func (w *writer) capture(of *hub.Capture, manages bool) {
	c := describeCapture(of)
	if c == nil {
		return
	}
	if !manages {
		c.Destination.Properties.StorageAccountResourceID = of.Destination
	}
	given := func(name, value string) {
		if value != "" {
			w.text(name, value)
		}
	}
	w.WriteString("<CaptureDescription><Destination>")
	w.text("Name", c.Destination.Name)
	w.WriteString("<Properties>")
	given("ArchiveNameFormat", c.Destination.Properties.ArchiveNameFormat)
	given("BlobContainer", c.Destination.Properties.BlobContainer)
	given("StorageAccountResourceId", c.Destination.Properties.StorageAccountResourceID)
	w.WriteString("</Properties></Destination>")
	w.text("Enabled", strconv.FormatBool(*c.Enabled))
	w.text("Encoding", *c.Encoding)
	w.number("IntervalInSeconds", *c.IntervalInSeconds)
	w.number("SizeLimitInBytes", *c.SizeLimitInBytes)
	w.text("SkipEmptyArchives", strconv.FormatBool(*c.SkipEmptyArchives))
	w.WriteString("</CaptureDescription>")
}
