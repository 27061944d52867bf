"""Pictures and a judge in, figures beside those of real images and a page that shows them out. No torch in here."""
