"""The page people try first: photos, a video or a camera become a scene that grows frame by frame, in the browser.

uploads     what visitors send, checked and laid out in their scene's folder
scene       one input of one visitor: the network runs over it, results go to disk
scenes      all of them: who owns which, how many, for how long
packet      what of a frame goes to the browser
server      the scenes over HTTP, for their owners only
static/     the viewer that runs in the browser
gradio_app  the page around it
viewer      the viewer alone, for one input: `streamvggt view`
"""
